package events

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func read(t *testing.T, r io.Reader) []frame {
	t.Helper()
	frames := newReader(r, func() {})
	var got []frame
	for {
		f, err := frames.next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
}

func TestFrames(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		want   []frame
	}{
		"fields":         {"id: 7\nevent: a.b\ndata: x\n\n", []frame{{id: "7", event: "a.b", data: "x"}}},
		"several lines":  {"data: x\ndata:y\ndata\ndata:  z\n\n", []frame{{data: "x\ny\n\n z"}}},
		"carriage":       {"data: x\r\n\r\ndata: y\r\rdata: z\n\n", []frame{{data: "x"}, {data: "y"}, {data: "z"}}},
		"comments":       {": hello\n\n: still here\n\ndata: x\n\n", []frame{{data: "x"}}},
		"id stays":       {"id: 1\ndata: x\n\ndata: y\n\nid\ndata: z\n\n", []frame{{id: "1", data: "x"}, {id: "1", data: "y"}, {data: "z"}}},
		"id with NUL":    {"id: 1\x00\ndata: x\n\n", []frame{{data: "x"}}},
		"byte order":     {"\ufeffdata: x\n\n", []frame{{data: "x"}}},
		"retry":          {"retry: 1500\n\nretry: x\n\n", []frame{{retry: 1500 * time.Millisecond}}},
		"cut off":        {"data: x\n\ndata: y\n", []frame{{data: "x"}}},
		"unknown fields": {"color: red\ndata: x\n\n", []frame{{data: "x"}}},
		"event alone":    {"event: a\n\ndata: x\n\n", []frame{{data: "x"}}},
		"empty":          {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, stream := range []io.Reader{
				strings.NewReader(test.stream),
				iotest.OneByteReader(strings.NewReader(test.stream)),
			} {
				got := read(t, stream)
				if len(got) != len(test.want) {
					t.Fatalf("got %+v", got)
				}
				for i := range got {
					if got[i] != test.want[i] {
						t.Errorf("got %+v, want %+v", got[i], test.want[i])
					}
				}
			}
		})
	}
}

func TestBrokenStreamIsAnError(t *testing.T) {
	broken := errors.New("broken")
	frames := newReader(io.MultiReader(strings.NewReader("data: x\n\n"), iotest.ErrReader(broken)), func() {})
	if f, err := frames.next(); err != nil || f.data != "x" {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := frames.next(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestEndlessLineIsAnError(t *testing.T) {
	frames := newReader(io.LimitReader(endless{}, maxLine*2), func() {})
	if _, err := frames.next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
