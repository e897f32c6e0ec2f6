package eventbus

import (
	"fmt"
	"strings"
)

const maxTopic = 255

// pattern is a compiled pattern: its words, and whether ">" closed it.
type pattern struct {
	text  string
	words []string
	rest  bool
}

func (p pattern) String() string { return p.text }

// isWord reports whether text is one or more of A-Z a-z 0-9 _ -.
func isWord(text string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return text != ""
}

func checkTopic(topic string) error {
	if len(topic) <= maxTopic {
		valid := true
		for _, word := range strings.Split(topic, ".") {
			valid = valid && isWord(word)
		}
		if valid {
			return nil
		}
	}
	return fmt.Errorf("eventbus: expected a topic such as orders.created, got %.80q", topic)
}

func parsePattern(text string) (pattern, error) {
	p := pattern{text: text, words: strings.Split(text, ".")}
	if last := len(p.words) - 1; p.words[last] == ">" {
		p.rest, p.words = true, p.words[:last]
	}
	valid := len(text) <= maxTopic
	for _, word := range p.words {
		valid = valid && (word == "*" || isWord(word))
	}
	if !valid {
		return pattern{}, fmt.Errorf("eventbus: expected a topic or a pattern such as orders.* or orders.>, got %.80q", text)
	}
	return p, nil
}

func (p pattern) matches(topic string) bool {
	for _, word := range p.words {
		if topic == "" {
			return false
		}
		var first string
		first, topic, _ = strings.Cut(topic, ".")
		if word != "*" && word != first {
			return false
		}
	}
	return p.rest == (topic != "")
}
