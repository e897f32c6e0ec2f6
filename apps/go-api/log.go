package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"
)

const requestIDHeader = "X-Request-Id"

// statusClientClosedRequest is what proxies log for an answer that nobody was left to receive.
const statusClientClosedRequest = 499

// logger writes one JSON object a line. Safe for concurrent use: a line is one Write.
type logger struct {
	mu  sync.Mutex
	out io.Writer
	now func() time.Time
}

func newLogger(out io.Writer, now func() time.Time) *logger { return &logger{out: out, now: now} }

type requestLine struct {
	Time       string  `json:"time"`
	Level      string  `json:"level"`
	Method     string  `json:"method"`
	Path       string  `json:"path"`
	Status     int     `json:"status"`
	DurationMS float64 `json:"duration_ms"`
	RequestID  string  `json:"request_id"`
}

type messageLine struct {
	Time    string `json:"time"`
	Level   string `json:"level"`
	Message string `json:"message"`
}

func (l *logger) write(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		return // strings and numbers only: cannot happen
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Where stdout is gone there is nobody left to tell.
	_, _ = l.out.Write(append(text, '\n'))
}

func (l *logger) timestamp() string { return l.now().UTC().Format("2006-01-02T15:04:05.000Z") }

func (l *logger) message(level, text string) {
	l.write(messageLine{Time: l.timestamp(), Level: level, Message: text})
}

func levelOf(status int) string {
	switch {
	case status >= 500:
		return "error"
	case status >= 400:
		return "warning"
	}
	return "info"
}

// recorder remembers the status that a handler sent.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 { // 1xx answers are not final
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(data)
}

// Unwrap lets http.ResponseController reach Flush and the deadlines of the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// withRequestLog gives every request an id and writes its line when the answer is complete.
func withRequestLog(next http.Handler, log *logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		id := requestID(r.Header.Get(requestIDHeader))
		w.Header().Set(requestIDHeader, id)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			failure := recover()
			status := rec.status
			switch {
			case failure != nil:
				status = http.StatusInternalServerError
			case status == 0 && r.Context().Err() != nil:
				status = statusClientClosedRequest
			case status == 0:
				status = http.StatusOK
			}
			log.write(requestLine{
				Time: log.timestamp(), Level: levelOf(status), Method: r.Method, Path: r.URL.Path, Status: status,
				DurationMS: float64(time.Since(started).Microseconds()) / 1000, RequestID: id,
			})
			if failure != nil {
				panic(failure) // net/http reports it and closes the connection
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// requestID returns given where it is 1 to 128 of A-Z a-z 0-9 . _ - and a new id otherwise.
func requestID(given string) string {
	if len(given) >= 1 && len(given) <= 128 {
		valid := true
		for i := 0; i < len(given); i++ {
			c := given[i]
			valid = valid && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
				c == '.' || c == '_' || c == '-')
		}
		if valid {
			return given
		}
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return hex.EncodeToString([]byte(time.Now().Format(time.RFC3339Nano)))
	}
	return hex.EncodeToString(random[:])
}
