package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var background = context.Background()

// exchange is one request that the client has to send, and its answer.
type exchange struct {
	method, target, body string
	status               int
	answer               string
}

func scripted(t *testing.T, script ...exchange) *Client {
	t.Helper()
	next := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if next >= len(script) {
			t.Errorf("unexpected %s %s", r.Method, r.URL)
			return
		}
		want := script[next]
		next++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method != want.method || r.URL.RequestURI() != "/v1"+want.target || !sameJSON(string(body), want.body) {
			t.Errorf("got %s %s %s\nwant %s %s %s", r.Method, r.URL.RequestURI(), body, want.method, want.target, want.body)
		}
		w.WriteHeader(want.status)
		_, _ = io.WriteString(w, want.answer)
	}))
	t.Cleanup(func() {
		server.Close()
		if next != len(script) {
			t.Errorf("%d of %d requests came", next, len(script))
		}
	})
	client, err := New(server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

func TestEnqueue(t *testing.T) {
	first := 0
	client := scripted(
		t,
		exchange{"POST", "/queues/mail/jobs", `{"kind":"send","args":{"to":"a"},"priority":0,"unique_key":"k"}`,
			201, `{"ids":[7],"duplicates":[],"durability":"fsync"}`},
		exchange{"POST", "/queues/a%2Fb/jobs", `{"kind":"x"}`,
			422, `{"status":422,"code":"jobs.invalid","detail":"expected queue to be …","field":"queue"}`},
		exchange{"POST", "/queues/mail/jobs", `{"kind":"x"}`, 201, `{"ids":[]}`},
	)
	id, err := client.Enqueue(background, "mail", NewJob{
		Kind: "send", Args: map[string]string{"to": "a"}, Priority: &first, UniqueKey: "k",
	})
	if id != 7 || err != nil {
		t.Errorf("got %d, %v", id, err)
	}
	var problem *Problem
	if _, err := client.Enqueue(background, "a/b", NewJob{Kind: "x"}); !errors.As(err, &problem) || problem.Field != "queue" {
		t.Errorf("got %v", err)
	}
	if _, err := client.Enqueue(background, "mail", NewJob{Kind: "x"}); err == nil || !strings.Contains(err.Error(), "got 0") {
		t.Errorf("got %v", err)
	}
}

func TestEnqueueMany(t *testing.T) {
	client := scripted(t, exchange{
		"POST", "/queues/q/jobs:batch", `{"jobs":[{"kind":"a"},{"kind":"b","delay_s":1.5}]}`,
		201, `{"ids":[1,2],"duplicates":[2],"durability":"memory"}`,
	})
	got, err := client.EnqueueMany(background, "q", []NewJob{{Kind: "a"}, {Kind: "b", DelayS: 1.5}})
	if err != nil || len(got.IDs) != 2 || len(got.Duplicates) != 1 || got.Durability != "memory" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestGetAndResult(t *testing.T) {
	client := scripted(
		t,
		exchange{"GET", "/jobs/7", "", 200, `{"id":7,"queue":"q","kind":"k","state":"running","attempt":1,"args":{}}`},
		exchange{"GET", "/jobs/7/result?wait=1.5s", "", 200, `{"id":7,"state":"completed","result":{"n":3}}`},
	)
	if job, err := client.Get(background, 7); err != nil || job.State != "running" || job.Final() {
		t.Errorf("got %+v, %v", job, err)
	}
	job, err := client.Result(background, 7, 1500*time.Millisecond)
	if err != nil || !job.Final() || string(job.Result) != `{"n":3}` {
		t.Errorf("got %+v, %v", job, err)
	}
}

func TestLeaseAndVerdicts(t *testing.T) {
	lost := `{"status":409,"code":"jobs.lease_lost","detail":"stale"}`
	client := scripted(
		t,
		exchange{"POST", "/queues/q:lease", `{"limit":2,"lease_s":30,"wait_s":10,"worker":"w"}`,
			200, `{"jobs":[{"id":7,"fence":3,"queue":"q","kind":"k","args":[1],"attempt":2,"max_attempts":10,"created_at":1}]}`},
		exchange{"POST", "/jobs/7:heartbeat", `{"fence":3,"lease_s":30}`, 200, `{"verdict":"ok"}`},
		exchange{"POST", "/jobs/7:heartbeat", `{"fence":3,"lease_s":30}`, 200, `{"verdict":"cancel"}`},
		exchange{"POST", "/jobs/7:complete", `{"fence":3,"result":{"n":1}}`, 200, `{"verdict":"ok"}`},
		exchange{"POST", "/jobs/7:complete", `{"fence":3,"result":null}`, 409, lost},
		exchange{"POST", "/jobs/7:fail", `{"fence":3,"error":"no","retry":true,"retry_in_s":0.5}`, 200, `{"verdict":"lost"}`},
		exchange{"POST", "/jobs/7:snooze", `{"fence":3,"delay_s":2}`, 200, `{"verdict":"ok"}`},
		exchange{"POST", "/jobs/7:release", `{"fence":3}`, 200, `{"verdict":"ok"}`},
		exchange{"POST", "/jobs/7:stop", `{"fence":3}`, 200, `{"verdict":"ok"}`},
		exchange{"POST", "/jobs/7:progress", `{"fence":3,"value":0.5,"note":"half"}`, 200, `{"verdict":"cancel"}`},
		exchange{"POST", "/jobs:drain", `{"worker":"w"}`, 200, `{"ended":1}`},
	)
	leased, err := client.Lease(background, "q", LeaseOptions{2, 30 * time.Second, 10 * time.Second, "w"})
	if err != nil || len(leased) != 1 || leased[0].Fence != 3 || string(leased[0].Args) != "[1]" {
		t.Fatalf("got %+v, %v", leased, err)
	}
	job, half := leased[0], 500*time.Millisecond
	for i, got := range []struct{ err, want error }{
		{client.Heartbeat(background, job, 30*time.Second), nil},
		{client.Heartbeat(background, job, 30*time.Second), ErrCancelled},
		{client.Complete(background, job, map[string]int{"n": 1}), nil},
		{client.Complete(background, job, nil), ErrLeaseLost},
		{client.Fail(background, job, Failure{Error: "no", RetryIn: &half}), ErrLeaseLost},
		{client.Snooze(background, job, 2*time.Second), nil},
		{client.Release(background, job), nil},
		{client.Stop(background, job), nil},
		{client.Progress(background, job, 0.5, "half"), ErrCancelled},
		{client.Drain(background, "w"), nil},
	} {
		if !errors.Is(got.err, got.want) {
			t.Errorf("%d: got %v, want %v", i, got.err, got.want)
		}
	}
}
