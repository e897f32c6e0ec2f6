package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// queue is a small job server: it leases what was put, answers verdicts, and tells the test what it heard.
type queue struct {
	mu      sync.Mutex
	waiting []Lease
	verdict map[int64]string // of heartbeats; "" is ok
	broken  int              // requests that are still to be answered with 503
	arrived chan struct{}    // one for each job put
	drained chan struct{}    // one for each drain: ends a lease call that waits
	heard   chan string      // such as "complete 7 {"fence":1,…}"
	beats   chan int64
}

func newQueue(t *testing.T) (*queue, *Client) {
	t.Helper()
	q := &queue{
		verdict: map[int64]string{}, arrived: make(chan struct{}, 1000), drained: make(chan struct{}, 1000),
		heard: make(chan string, 1000), beats: make(chan int64, 1000),
	}
	server := httptest.NewServer(q)
	t.Cleanup(server.Close)
	client, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	return q, client
}

func (q *queue) put(jobs ...Lease) {
	q.mu.Lock()
	q.waiting = append(q.waiting, jobs...)
	q.mu.Unlock()
	for range jobs {
		q.arrived <- struct{}{}
	}
}

func (q *queue) answerHeartbeats(id int64, verdict string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.verdict[id] = verdict
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q.mu.Lock()
	broken := q.broken > 0
	if broken {
		q.broken--
	}
	q.mu.Unlock()
	if broken {
		q.heard <- "503"
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	if path == "/queues/forbidden:lease" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.HasSuffix(path, ":lease") {
		select {
		case <-q.arrived:
		case <-q.drained:
		case <-r.Context().Done():
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"jobs": q.take(1)})
		return
	}
	if path == "/jobs:drain" {
		q.drained <- struct{}{}
		_, _ = w.Write([]byte(`{"ended":1}`))
		return
	}
	var id int64
	var action string
	if _, err := fmt.Sscanf(strings.Replace(path, ":", " ", 1), "/jobs/%d %s", &id, &action); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	verdict := "ok"
	if action == "heartbeat" {
		q.mu.Lock()
		if v := q.verdict[id]; v != "" {
			verdict = v
		}
		q.mu.Unlock()
		q.beats <- id
	} else {
		text, _ := json.Marshal(body)
		q.heard <- fmt.Sprintf("%s %d %s", action, id, text)
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"verdict": verdict})
}

func (q *queue) take(n int) []Lease {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.waiting))
	taken := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return taken
}

// run starts the worker; the function that comes back stops it and returns what Run returned.
func run(t *testing.T, w *Worker) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// manualTicks makes the function that comes back decide when w sends a heartbeat; it returns once that has begun.
func manualTicks(w *Worker) (tick func()) {
	ticks := make(chan time.Time)
	w.ticks = func(time.Duration) (<-chan time.Time, func()) { return ticks, func() {} }
	return func() { ticks <- time.Time{} }
}

func lease(id int64, kind string) Lease { return Lease{ID: id, Fence: 1, Kind: kind, Attempt: 1} }

func TestWorkerRecordsEveryOutcome(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{Concurrency: 2})
	answers := map[string]func() (any, error){
		"returns":  func() (any, error) { return map[string]int{"n": 1}, nil },
		"nothing":  func() (any, error) { return nil, nil },
		"fails":    func() (any, error) { return nil, errors.New("no") },
		"discards": func() (any, error) { return nil, fmt.Errorf("wrapped: %w", Discard(errors.New("bad args"))) },
		"later":    func() (any, error) { return nil, RetryIn(1500*time.Millisecond, errors.New("busy")) },
		"snoozes":  func() (any, error) { return nil, SnoozeFor(time.Minute) },
	}
	for kind, answer := range answers {
		answer := answer
		w.Handle(kind, func(context.Context, Lease) (any, error) { return answer() })
	}
	w.Handle("panics", func(context.Context, Lease) (any, error) { panic("boom") })
	stop := run(t, w)
	for kind, want := range map[string]string{
		"returns":  `complete 1 {"fence":1,"result":{"n":1}}`,
		"nothing":  `complete 1 {"fence":1,"result":null}`,
		"fails":    `fail 1 {"error":"no","fence":1,"retry":true}`,
		"discards": `fail 1 {"error":"bad args","fence":1,"retry":false}`,
		"later":    `fail 1 {"error":"busy","fence":1,"retry":true,"retry_in_s":1.5}`,
		"snoozes":  `snooze 1 {"delay_s":60,"fence":1}`,
		"panics":   `fail 1 {"error":"panic: boom`,
		"unknown":  `fail 1 {"error":"this worker has no handler for \"unknown\"`,
	} {
		q.put(lease(1, kind))
		if got := <-q.heard; !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s", kind, got)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWorkerRunsJobsAtOnceUpToItsConcurrency(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{Concurrency: 3})
	started, release := make(chan struct{}, 10), make(chan struct{})
	w.Handle("k", func(context.Context, Lease) (any, error) {
		started <- struct{}{}
		<-release
		return nil, nil
	})
	run(t, w)
	q.put(lease(1, "k"), lease(2, "k"), lease(3, "k"), lease(4, "k"))
	for i := 0; i < 3; i++ {
		<-started // all three run while none has ended
	}
	select {
	case <-started:
		t.Error("a fourth one started")
	default:
	}
	close(release)
	for i := 0; i < 4; i++ {
		<-q.heard
	}
}

func TestHeartbeatsRenewAndStopTheHandler(t *testing.T) {
	for verdict, cause := range map[string]error{"cancel": ErrCancelled, "lost": ErrLeaseLost} {
		t.Run(verdict, func(t *testing.T) {
			q, client := newQueue(t)
			reported := make(chan error, 10)
			w := NewWorker(client, WorkerConfig{OnError: func(err error) { reported <- err }})
			tick := manualTicks(w)
			stopped := make(chan error, 1)
			w.Handle("k", func(ctx context.Context, _ Lease) (any, error) {
				<-ctx.Done()
				stopped <- context.Cause(ctx)
				return nil, ctx.Err()
			})
			run(t, w)
			q.put(lease(5, "k"))
			for i := 0; i < 3; i++ {
				tick()
				if id := <-q.beats; id != 5 {
					t.Errorf("heartbeat of %d", id)
				}
			}
			q.answerHeartbeats(5, verdict)
			tick()
			if got := <-stopped; !errors.Is(got, cause) {
				t.Errorf("got %v", got)
			}
			if verdict == "cancel" {
				if got := <-q.heard; got != `stop 5 {"fence":1}` {
					t.Errorf("got %s", got)
				}
			} else if err := <-reported; !errors.Is(err, ErrLeaseLost) { // and nothing is said to the server
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestHandlerEndsWhereNoHeartbeatComesThroughForALease(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{Lease: time.Millisecond})
	ticks := make(chan time.Time)
	w.ticks = func(time.Duration) (<-chan time.Time, func()) { return ticks, func() {} }
	started, stopped := make(chan struct{}), make(chan error, 1)
	w.Handle("k", func(ctx context.Context, _ Lease) (any, error) {
		close(started)
		<-ctx.Done()
		stopped <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	run(t, w)
	q.put(lease(1, "k"))
	<-started
	q.mu.Lock()
	q.broken = 1 << 30
	q.mu.Unlock()
	for waiting := true; waiting; {
		select {
		case ticks <- time.Time{}: // a heartbeat that is answered with 503
		case got := <-stopped:
			if !errors.Is(got, ErrLeaseLost) {
				t.Errorf("got %v", got)
			}
			waiting = false
		}
	}
	q.mu.Lock()
	q.broken = 0
	q.mu.Unlock()
}

func TestTimeoutEndsTheHandler(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{})
	w.Handle("k", func(ctx context.Context, _ Lease) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	run(t, w)
	job := lease(1, "k")
	job.TimeoutS = 0.001
	q.put(job)
	if got := <-q.heard; !strings.Contains(got, "deadline exceeded") {
		t.Errorf("got %s", got)
	}
}

func TestStopLetsRunningJobsFinish(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{})
	started, release := make(chan struct{}), make(chan struct{})
	w.Handle("k", func(ctx context.Context, _ Lease) (any, error) {
		close(started)
		<-release
		return "done", ctx.Err()
	})
	ctx, cancel := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	q.put(lease(1, "k"))
	<-started
	cancel()
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := <-q.heard; got != `complete 1 {"fence":1,"result":"done"}` {
		t.Errorf("got %s", got)
	}
}

func TestStopHandsBackWhatOutlastsTheDrain(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{Drain: time.Millisecond})
	started := make(chan struct{})
	w.Handle("k", func(ctx context.Context, _ Lease) (any, error) {
		close(started)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	stop := run(t, w)
	q.put(lease(1, "k"))
	<-started
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := <-q.heard; got != `release 1 {"fence":1}` {
		t.Errorf("got %s", got)
	}
}

func TestStopTakesWhatTheServerHasAlreadyLeased(t *testing.T) {
	asked, answered := make(chan struct{}), make(chan struct{})
	settled := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ":lease"):
			close(asked)
			<-answered // the job is leased while the worker is told to stop
			_ = json.NewEncoder(w).Encode(map[string]any{"jobs": []Lease{lease(1, "k")}})
		case strings.HasSuffix(r.URL.Path, ":drain"):
			close(answered)
			_, _ = w.Write([]byte(`{"ended":0}`))
		default:
			settled <- r.URL.Path
			_, _ = w.Write([]byte(`{"verdict":"ok"}`))
		}
	}))
	defer server.Close()
	client, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorker(client, WorkerConfig{})
	w.Handle("k", func(context.Context, Lease) (any, error) { return nil, nil })
	ctx, cancel := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-asked
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := <-settled; got != "/v1/jobs/1:complete" {
		t.Errorf("got %s", got)
	}
}

func TestWorkerOutlastsABrokenServer(t *testing.T) {
	q, client := newQueue(t)
	reported := make(chan error, 10)
	w := NewWorker(client, WorkerConfig{OnError: func(err error) { reported <- err }})
	w.Handle("k", func(context.Context, Lease) (any, error) { return nil, nil })
	q.broken = 2
	run(t, w)
	for i := 0; i < 2; i++ {
		var problem *Problem
		if err := <-reported; !errors.As(err, &problem) || problem.Status != 503 {
			t.Errorf("got %v", err)
		}
		<-q.heard
	}
	q.put(lease(1, "k"))
	if got := <-q.heard; !strings.HasPrefix(got, "complete 1") {
		t.Errorf("got %s", got)
	}
}

func TestOutcomeIsRepeatedUntilItIsHeard(t *testing.T) {
	q, client := newQueue(t)
	w := NewWorker(client, WorkerConfig{})
	w.Handle("k", func(context.Context, Lease) (any, error) {
		q.mu.Lock()
		q.broken = 1 // the next request is the outcome or a lease: both are tried again
		q.mu.Unlock()
		return nil, nil
	})
	run(t, w)
	q.put(lease(1, "k"))
	heard := []string{<-q.heard, <-q.heard}
	if !strings.Contains(strings.Join(heard, " "), "503") || !strings.Contains(strings.Join(heard, " "), "complete 1") {
		t.Errorf("got %v", heard)
	}
}

func TestRefusedWorkerSaysSo(t *testing.T) {
	_, client := newQueue(t)
	err := NewWorker(client, WorkerConfig{Queue: "forbidden"}).Run(background)
	var problem *Problem
	if !errors.As(err, &problem) || problem.Status != http.StatusUnauthorized {
		t.Errorf("got %v", err)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for failures, longest := range map[int]time.Duration{1: 100 * time.Millisecond, 3: 400 * time.Millisecond, 1000: 10 * time.Second} {
		for i := 0; i < 100; i++ {
			if got := backoff(failures); got < longest/2 || got > longest {
				t.Errorf("after %d: %s", failures, got)
			}
		}
	}
}

func TestNegativeConfigPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("did not panic")
		}
	}()
	NewWorker(&Client{}, WorkerConfig{Drain: -1})
}
