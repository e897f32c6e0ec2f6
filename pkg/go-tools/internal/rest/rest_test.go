package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestNewChecksTheAddress(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:7070", "ftp://x", "http://", "http://a b"} {
		if _, err := New(bad, ""); err == nil || !strings.Contains(err.Error(), "expected an address") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for _, good := range []string{"http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"} {
		if c, err := New(good, ""); err != nil || c.base != "http://h:1" {
			t.Errorf("%q: got %+v, %v", good, c, err)
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Setenv("FAIRWAY_URL", "")
	if _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), "FAIRWAY_URL") {
		t.Errorf("got %v", err)
	}
	t.Setenv("FAIRWAY_URL", "http://h:1")
	t.Setenv("FAIRWAY_TOKEN", "secret")
	if c, err := FromEnvironment(); err != nil || c.token != "secret" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func serving(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := New(server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestCallSendsAndDecodesJSON(t *testing.T) {
	client := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got := r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(body)
		if want := `POST /v1/thing Bearer secret {"a":1}`; got != want {
			t.Errorf("got %s", got)
		}
		_, _ = io.WriteString(w, `{"b": 2}`)
	})
	var result struct{ B int }
	if err := client.Call(context.Background(), "POST", "/thing", map[string]int{"a": 1}, &result, 0); err != nil || result.B != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
}

func TestProblems(t *testing.T) {
	for _, test := range []struct {
		status    int
		body      string
		message   string
		temporary bool
	}{
		{404, `{"status":404,"code":"jobs.not_found","detail":"No job 7."}`, "fairway: jobs.not_found: No job 7. (404)", false},
		{502, `<html>bad gateway</html>`, "fairway: Bad Gateway <html>bad gateway</html> (502)", true},
		{429, ``, "fairway: Too Many Requests (429)", true},
		{422, `{"title":"Unprocessable"}`, `fairway: Unprocessable Entity {"title":"Unprocessable"} (422)`, false},
	} {
		client := serving(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		})
		err := client.Call(context.Background(), "GET", "/", nil, nil, 0)
		var problem *Problem
		if !errors.As(err, &problem) || err.Error() != test.message || Temporary(err) != test.temporary {
			t.Errorf("%d: got %v, temporary %v", test.status, err, Temporary(err))
		}
	}
}

func TestUnreachableIsTemporaryAndCancelledIsNot(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	client, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if err := client.Call(context.Background(), "GET", "/", nil, nil, 0); !Temporary(err) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Call(ctx, "GET", "/", nil, nil, 0); Temporary(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAnswerThatIsNoJSON(t *testing.T) {
	client := serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	var result map[string]any
	err := client.Call(context.Background(), "GET", "/x", nil, &result, 0)
	if err == nil || !strings.Contains(err.Error(), "expected JSON from GET /x") {
		t.Errorf("got %v", err)
	}
	if err := client.Call(context.Background(), "GET", "/x", func() {}, nil, 0); err == nil {
		t.Error("a function was encoded")
	}
}
