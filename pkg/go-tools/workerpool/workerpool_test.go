package workerpool

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func closed(t *testing.T, p *Pool[int]) {
	t.Helper()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestEveryItemRunsOnce(t *testing.T) {
	var seen [1000]atomic.Int32
	p := New(context.Background(), Config[int]{Workers: 8, Queue: 3}, func(_ context.Context, i int) error {
		seen[i].Add(1)
		return nil
	})
	var submitters sync.WaitGroup
	for s := 0; s < 10; s++ {
		submitters.Add(1)
		go func(s int) {
			defer submitters.Done()
			for i := s; i < len(seen); i += 10 {
				if err := p.Submit(context.Background(), i); err != nil {
					t.Errorf("submit %d: %v", i, err)
				}
			}
		}(s)
	}
	submitters.Wait()
	closed(t, p)
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("item %d ran %d times", i, n)
		}
	}
	if s := p.Statistics(); s.Done != 1000 || s.Failed != 0 || s.Queued != 0 || s.Running != 0 {
		t.Errorf("statistics are %+v", s)
	}
}

func TestWorkersBoundConcurrency(t *testing.T) {
	var now, most atomic.Int64
	p := New(context.Background(), Config[int]{Workers: 3, Queue: 100}, func(context.Context, int) error {
		n := now.Add(1)
		for {
			seen := most.Load()
			if n <= seen || most.CompareAndSwap(seen, n) {
				break
			}
		}
		now.Add(-1)
		return nil
	})
	for i := 0; i < 100; i++ {
		if err := p.Submit(context.Background(), i); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, p)
	if most.Load() > 3 {
		t.Errorf("%d ran at once", most.Load())
	}
}

// blocked returns a pool of one worker that is busy with item 0, and a function that lets it go on.
func blocked(t *testing.T, queue int) (*Pool[int], func()) {
	t.Helper()
	started, release := make(chan struct{}), make(chan struct{})
	p := New(context.Background(), Config[int]{Workers: 1, Queue: queue}, func(ctx context.Context, i int) error {
		if i > 0 {
			return nil
		}
		close(started)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err := p.Submit(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	<-started
	return p, sync.OnceFunc(func() { close(release) })
}

func TestTrySubmitSaysFull(t *testing.T) {
	p, release := blocked(t, 1)
	if err := p.TrySubmit(1); err != nil {
		t.Fatal(err)
	}
	if err := p.TrySubmit(2); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	if got := p.String(); got != "<Pool [Workers: 1, Running: 1, Queued: 1/1]>" {
		t.Errorf("got %s", got)
	}
	release()
	closed(t, p)
}

func TestSubmitWaitsForRoom(t *testing.T) {
	p, release := blocked(t, 1)
	if err := p.Submit(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	submitted := make(chan error, 1)
	go func() { submitted <- p.Submit(context.Background(), 2) }()
	release()
	if err := <-submitted; err != nil {
		t.Error(err)
	}
	closed(t, p)
	if s := p.Statistics(); s.Done != 3 {
		t.Errorf("%d done", s.Done)
	}
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	p, release := blocked(t, 1)
	if err := p.Submit(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	submitted := make(chan error, 1)
	go func() { submitted <- p.Submit(ctx, 2) }()
	cancel()
	if err := <-submitted; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := p.Submit(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context queued: %v", err)
	}
	release()
	closed(t, p)
	if s := p.Statistics(); s.Done != 2 {
		t.Errorf("%d done", s.Done)
	}
}

func TestCloseWakesSubmittersAndRefuses(t *testing.T) {
	p, release := blocked(t, 1)
	if err := p.Submit(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	submitted := make(chan error, 1)
	go func() { submitted <- p.Submit(context.Background(), 2) }()
	ended := make(chan error, 1)
	go func() { ended <- p.Close(context.Background()) }()
	if err := <-submitted; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := p.TrySubmit(3); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := p.Submit(context.Background(), 3); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	closed(t, p) // again
}

func TestCloseDropsWhatOutlastsItsContext(t *testing.T) {
	p, _ := blocked(t, 10)
	for i := 1; i <= 5; i++ {
		if err := p.Submit(context.Background(), i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.Close(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "items dropped") {
		t.Errorf("got %v", err)
	}
}

func TestErrorsAndPanicsAreReported(t *testing.T) {
	var mu sync.Mutex
	reported := map[int]error{}
	broken := errors.New("broken")
	p := New(context.Background(), Config[int]{Workers: 2, OnError: func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		reported[i] = err
	}}, func(_ context.Context, i int) error {
		switch i {
		case 1:
			return broken
		case 2:
			panic("boom")
		}
		return nil
	})
	for i := 0; i < 4; i++ {
		if err := p.Submit(context.Background(), i); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, p)
	var panicked PanicError
	if len(reported) != 2 || !errors.Is(reported[1], broken) || !errors.As(reported[2], &panicked) {
		t.Errorf("reported %v", reported)
	}
	if panicked.Value != "boom" || !strings.Contains(string(panicked.Stack), "workerpool_test.go") {
		t.Errorf("panic is %v\n%s", panicked.Value, panicked.Stack)
	}
	if s := p.Statistics(); s.Done != 4 || s.Failed != 2 {
		t.Errorf("statistics are %+v", s)
	}
}

func TestNegativeSizesPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("did not panic")
		}
	}()
	New(context.Background(), Config[int]{Workers: -1}, func(context.Context, int) error { return nil })
}
