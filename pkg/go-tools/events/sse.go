package events

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	maxLine = 16 << 20 // bytes of one line
	maxData = 64 << 20 // bytes of one event's data
)

// frame is one server-sent event. Its id stays from the event before where it brings none of its own.
type frame struct {
	id, event, data string
	retry           time.Duration // 0: the server said nothing
}

// reader parses a stream of server-sent events. Source: WHATWG HTML, "Server-sent events".
type reader struct {
	lines *bufio.Scanner
	seen  func() // called at every line, comments included
	last  string
	first bool
}

func newReader(stream io.Reader, seen func()) *reader {
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 4096), maxLine)
	lines.Split(splitLines())
	return &reader{lines: lines, seen: seen, first: true}
}

// splitLines splits at LF, CR LF and CR. A CR ends its line at once: the LF that may follow could be long in coming.
func splitLines() bufio.SplitFunc {
	afterCR := false
	return func(data []byte, _ bool) (int, []byte, error) {
		skip := 0
		if afterCR && len(data) > 0 {
			afterCR = false
			if data[0] == '\n' {
				skip = 1
			}
		}
		for i := skip; i < len(data); i++ {
			if data[i] == '\n' || data[i] == '\r' {
				afterCR = data[i] == '\r'
				return i + 1, data[skip:i], nil
			}
		}
		// What the stream's end cuts off is no line.
		return skip, nil, nil
	}
}

// next returns the next event that has data or a new retry time. An event that the stream's end cuts off is none.
// The error is io.EOF at the end.
func (r *reader) next() (frame, error) {
	var f frame
	var data strings.Builder
	hasData := false
	for r.lines.Scan() {
		r.seen()
		line := r.lines.Text()
		if r.first {
			line, r.first = strings.TrimPrefix(line, "\ufeff"), false
		}
		if line == "" {
			if hasData || f.retry > 0 {
				f.id, f.data = r.last, data.String()
				return f, nil
			}
			f.event = ""
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			if hasData {
				data.WriteByte('\n')
			}
			if data.Len()+len(value) > maxData {
				return frame{}, fmt.Errorf("expected events of at most %d bytes", maxData)
			}
			data.WriteString(value)
			hasData = true
		case "event":
			f.event = value
		case "id":
			if !strings.ContainsRune(value, 0) {
				r.last = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				f.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	if err := r.lines.Err(); err != nil {
		return frame{}, err
	}
	return frame{}, io.EOF
}
