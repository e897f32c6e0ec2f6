package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is a bytes.Buffer that the server may write while the test reads.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func testConfig(t *testing.T, env map[string]string) config {
	t.Helper()
	c, err := loadConfig(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newTestServer serves the API as serve does, without signals; the buffer gets the log.
func newTestServer(t *testing.T, env map[string]string) (*httptest.Server, *buffer, *api) {
	t.Helper()
	c := testConfig(t, env)
	p := newPool(c.workers, c.queue, c.retention)
	a := &api{config: c, pool: p, stopping: make(chan struct{})}
	out := &buffer{}
	server := httptest.NewServer(withRequestLog(a.routes(), newLogger(out, time.Now)))
	t.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.close(ctx)
	})
	return server, out, a
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(body))
}

func TestRoutes(t *testing.T) {
	server, _, _ := newTestServer(t, map[string]string{"FAIRWAY_RELEASE": "r7"})
	for _, test := range []struct {
		target string
		status int
		body   string
	}{
		{"/", 200, `{"service":"go-api","language":"go","release":"r7"}`},
		{"/healthz", 200, `{"status":"ok"}`},
		{"/slow?ms=1", 200, `{"slept_ms":1}`},
		{"/slow", 400, `{"error":"expected ms to be a whole number from 0 to 10000, got: \"\""}`},
		{"/slow?ms=10001", 400, `{"error":"expected ms to be a whole number from 0 to 10000, got: \"10001\""}`},
		{"/healthz/more", 404, `{"error":"nothing at /healthz/more"}`},
		{"/work", 405, `{"error":"GET is not allowed here"}`},
		{"/work/unknown", 404, `{"error":"no such work; the last 1000 finished ones are kept"}`},
		{"/stream?n=0", 400, `{"error":"expected n to be a whole number from 1 to 1000, got: \"0\""}`},
		{"/stream?interval_ms=0", 400, `{"error":"expected interval_ms to be a whole number from 1 to 1000, got: \"0\""}`},
	} {
		t.Run(test.target, func(t *testing.T) {
			status, body := get(t, server.URL+test.target)
			if status != test.status || body != test.body {
				t.Errorf("got %d %s, want %d %s", status, body, test.status, test.body)
			}
		})
	}
}

func TestMethodNotAllowedSaysWhatIs(t *testing.T) {
	server, _, _ := newTestServer(t, nil)
	answer, err := http.Post(server.URL+"/healthz", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("got %d, Allow %q", answer.StatusCode, answer.Header.Get("Allow"))
	}
}

func TestUncleanPathsAreNotRedirected(t *testing.T) {
	server, _, _ := newTestServer(t, nil)
	for _, target := range []string{"//healthz", "/./healthz", "/work/../healthz", "/work//x", "/healthz/", "/work/"} {
		answer, err := http.Get(server.URL + target)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %d, %s", target, answer.StatusCode, answer.Header.Get("Content-Type"))
		}
	}
}

func post(t *testing.T, url, body string) (*http.Response, view) {
	t.Helper()
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var v view
	if err := json.NewDecoder(answer.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return answer, v
}

func TestWorkIsDoneAndFound(t *testing.T) {
	server, _, a := newTestServer(t, nil)
	answer, v := post(t, server.URL+"/work", `{"below": 1000}`)
	if answer.StatusCode != http.StatusAccepted || v.ID == "" || v.Below != 1000 {
		t.Fatalf("got %d %+v", answer.StatusCode, v)
	}
	if location := answer.Header.Get("Location"); location != "/work/"+v.ID {
		t.Errorf("Location is %q", location)
	}
	a.pool.close(context.Background()) // returns when everything queued is done
	status, body := get(t, server.URL+"/work/"+v.ID)
	want := fmt.Sprintf(`{"id":%q,"state":"done","below":1000,"result":168}`, v.ID)
	if status != http.StatusOK || body != want {
		t.Errorf("got %d %s, want %s", status, body, want)
	}
}

func TestWorkRefusesBadOrders(t *testing.T) {
	server, _, _ := newTestServer(t, nil)
	for body, status := range map[string]int{
		``:                              400,
		`{`:                             400,
		`[]`:                            400,
		`{}`:                            400,
		`{"below": -1}`:                 400,
		`{"below": 1.5}`:                400,
		`{"below": 5000001}`:            400,
		`{"above": 3}`:                  400,
		`{"below": 3} {"below": 4}`:     400,
		strings.Repeat(" ", maxBody+10): 413,
	} {
		if answer, _ := post(t, server.URL+"/work", body); answer.StatusCode != status {
			t.Errorf("%.40q: got %d, want %d", body, answer.StatusCode, status)
		}
	}
}

func TestFullQueueAnswers503WithRetryAfter(t *testing.T) {
	c := testConfig(t, nil)
	stuck := &pool{tasks: make(chan string, 1), known: map[string]*view{}, retention: 1} // nobody takes work
	handler := (&api{config: c, pool: stuck}).routes()
	submit := func() *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest("POST", "/work", strings.NewReader(`{"below": 3}`))
		handler.ServeHTTP(deadlines{recorder}, request)
		return recorder
	}
	if got := submit(); got.Code != http.StatusAccepted {
		t.Fatalf("got %d %s", got.Code, got.Body)
	}
	got := submit()
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q", got.Code, got.Header().Get("Retry-After"))
	}
	if len(stuck.known) != 1 {
		t.Errorf("refused work is remembered: %d known", len(stuck.known))
	}
}

// deadlines gives a recorder the deadline that a connection has.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error { return nil }

func TestStreamSendsEachEventAtOnce(t *testing.T) {
	server, _, _ := newTestServer(t, nil)
	answer, err := http.Get(server.URL + "/stream?n=3&interval_ms=1")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := "id: 1\ndata: {\"number\":1}\n\nid: 2\ndata: {\"number\":2}\n\nid: 3\ndata: {\"number\":3}\n\n" +
		"event: end\ndata: {\"reason\":\"done\"}\n\n"
	if string(body) != want {
		t.Errorf("got %q", body)
	}
}

func TestStreamEndsWhenTheServerStops(t *testing.T) {
	c := testConfig(t, nil)
	stopping := make(chan struct{})
	server := httptest.NewServer((&api{config: c, stopping: stopping}).routes())
	defer server.Close()
	answer, err := http.Get(server.URL + "/stream?n=1000&interval_ms=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	reader := bufio.NewReader(answer.Body)
	if line, err := reader.ReadString('\n'); err != nil || line != "id: 1\n" {
		t.Fatalf("got %q, %v: the first event was not flushed", line, err)
	}
	close(stopping)
	rest, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(rest), "event: end\ndata: {\"reason\":\"stopping\"}\n\n") {
		t.Errorf("got %q", rest)
	}
}

func TestRequestLog(t *testing.T) {
	server, out, _ := newTestServer(t, nil)
	request, err := http.NewRequest("GET", server.URL+"/nowhere?token=secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(requestIDHeader, "c0ffee")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	server.Close() // waits for the handler, so for the line
	var line requestLine
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := time.Parse(time.RFC3339, line.Time); err != nil {
		t.Error(err)
	}
	line.Time, line.DurationMS = "", 0
	want := requestLine{Level: "warning", Method: "GET", Path: "/nowhere", Status: 404, RequestID: "c0ffee"}
	if line != want {
		t.Errorf("got %+v, want %+v", line, want)
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the query is in the log: %s", out)
	}
}

func TestRequestLogOfAPanicIs500(t *testing.T) {
	out := &buffer{}
	handler := withRequestLog(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}), newLogger(out, time.Now))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not reach net/http")
			}
		}()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	if !strings.Contains(out.String(), `"level":"error"`) || !strings.Contains(out.String(), `"status":500`) {
		t.Errorf("got %s", out)
	}
}

func TestRequestID(t *testing.T) {
	for _, kept := range []string{"a", "A.b_c-9", strings.Repeat("x", 128)} {
		if got := requestID(kept); got != kept {
			t.Errorf("%q became %q", kept, got)
		}
	}
	for _, replaced := range []string{"", "a b", "a\nb", `"`, "é", strings.Repeat("x", 129)} {
		if got := requestID(replaced); len(got) != 32 {
			t.Errorf("%q became %q", replaced, got)
		}
	}
}

func TestServeFinishesWhatIsInFlight(t *testing.T) {
	c := testConfig(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	out := &buffer{}
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, c, listener, newLogger(out, time.Now)) }()
	url := "http://" + listener.Addr().String()
	// The stream's first event says that the request is being handled; then the server is told to stop.
	answer, err := http.Get(url + "/stream?n=1000&interval_ms=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	_, work := post(t, url+"/work", `{"below": 100}`)
	stop()
	body, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(body), "stopping") {
		t.Errorf("got %q, %v", body, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve returned %v", err)
	}
	if work.ID == "" || !strings.Contains(out.String(), `"message":"stopped"`) {
		t.Errorf("got %s", out)
	}
}

func TestRunSaysWhatItCannotUse(t *testing.T) {
	for name, value := range map[string]string{"PORT": "http", "SHUTDOWN_TIMEOUT": "0", "WORKERS": "257"} {
		var stderr bytes.Buffer
		status := run(context.Background(), func(n string) string {
			if n == name {
				return value
			}
			return ""
		}, io.Discard, &stderr)
		if status != exitUsage || !strings.Contains(stderr.String(), name) || !strings.Contains(stderr.String(), value) {
			t.Errorf("%s=%s: status %d, %q", name, value, status, &stderr)
		}
	}
}

func TestRunFailsWhereThePortIsTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	status := run(context.Background(), func(n string) string {
		if n == "PORT" {
			return port
		}
		return ""
	}, io.Discard, &stderr)
	if status != exitFailed || !strings.Contains(stderr.String(), "address already in use") {
		t.Errorf("status %d, %q", status, &stderr)
	}
}
