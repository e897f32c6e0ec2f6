package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"
)

// TestLive runs against a Fairway: FAIRWAY_URL and FAIRWAY_TOKEN. The repository's own tests start one for it.
func TestLive(t *testing.T) {
	if os.Getenv("FAIRWAY_URL") == "" {
		t.Skip("FAIRWAY_URL is not set: no Fairway to test against")
	}
	client, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	w := NewWorker(client, WorkerConfig{Queue: "live", Lease: 3 * time.Second, OnError: func(err error) { t.Log(err) }})
	w.Handle("double", func(_ context.Context, job Lease) (any, error) {
		var n int
		if err := json.Unmarshal(job.Args, &n); err != nil {
			return nil, Discard(err)
		}
		return 2 * n, nil
	})
	w.Handle("again", func(_ context.Context, job Lease) (any, error) {
		if job.Attempt == 1 {
			return nil, RetryIn(0, errors.New("first attempt"))
		}
		return job.Attempt, nil
	})
	w.Handle("wait", func(ctx context.Context, job Lease) (any, error) {
		if err := client.Progress(ctx, job, 0.5, "half"); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()

	first, err := client.EnqueueMany(ctx, "live", []NewJob{{Kind: "double", Args: 21}, {Kind: "again"}, {Kind: "double", Args: "x"}})
	if err != nil || len(first.IDs) != 3 || first.Durability == "" {
		t.Fatalf("got %+v, %v", first, err)
	}
	for i, want := range []struct{ state, result string }{{"completed", "42"}, {"completed", "2"}, {"discarded", ""}} {
		job, err := client.Result(ctx, first.IDs[i], 20*time.Second)
		if err != nil || job.State != want.state || string(job.Result) != want.result {
			t.Errorf("job %d: got %+v, %v", i, job, err)
		}
	}
	unique := NewJob{Kind: "double", Args: 1, DelayS: 3600, UniqueKey: "one"}
	one, err := client.Enqueue(ctx, "live", unique)
	if err != nil {
		t.Error(err)
	}
	if two, err := client.Enqueue(ctx, "live", unique); err != nil || two != one {
		t.Errorf("got %d after %d, %v", two, one, err)
	}
	var problem *Problem
	if _, err := client.Enqueue(ctx, "live", NewJob{Kind: "no kind"}); !errors.As(err, &problem) || problem.Field != "kind" {
		t.Errorf("got %v", err)
	}
	if _, err := client.Get(ctx, 1<<50); !errors.As(err, &problem) || problem.Code != "jobs.not_found" {
		t.Errorf("got %v", err)
	}

	// A job that outlasts the worker is handed back, and costs no attempt.
	w.config.Drain = time.Millisecond
	waiting, err := client.Enqueue(ctx, "live", NewJob{Kind: "wait"})
	if err != nil {
		t.Fatal(err)
	}
	for job := (Job{}); job.State != "running"; {
		if job, err = client.Get(ctx, waiting); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if job, err := client.Get(ctx, waiting); err != nil || job.State != "available" || job.Attempt != 0 {
		t.Errorf("got %+v, %v", job, err)
	}

	// A stale fence is refused.
	leased, err := client.Lease(ctx, "live", LeaseOptions{Limit: 1, Lease: time.Minute, Worker: "test"})
	if err != nil || len(leased) != 1 || leased[0].ID != waiting {
		t.Fatalf("got %+v, %v", leased, err)
	}
	stale := leased[0]
	stale.Fence--
	if err := client.Complete(ctx, stale, nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("got %v", err)
	}
	if err := client.Complete(ctx, leased[0], "done"); err != nil {
		t.Error(err)
	}
}
