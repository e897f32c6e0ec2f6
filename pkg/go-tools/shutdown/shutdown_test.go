package shutdown

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestSignalEndsTheContextAndNamesItself(t *testing.T) {
	ctx, stop := Signals(context.Background(), syscall.SIGUSR1)
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	var cause SignalError
	if !errors.As(context.Cause(ctx), &cause) || cause.Signal != syscall.SIGUSR1 {
		t.Errorf("cause is %v", context.Cause(ctx))
	}
}

func TestStopEndsTheContextWithoutASignal(t *testing.T) {
	ctx, stop := Signals(context.Background(), syscall.SIGUSR2)
	stop()
	stop()
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		t.Errorf("cause is %v", cause)
	}
}

func TestHooksRunByOrder(t *testing.T) {
	s := New(time.Minute)
	var mu sync.Mutex
	var ran []string
	add := func(name string, order int) {
		if err := s.Hook(name, order, func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, name)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	add("third", 30)
	add("first", -1)
	add("second", 2)
	report, err := s.Run()
	if err != nil || strings.Join(ran, " ") != "first second third" {
		t.Errorf("ran %v, %v", ran, err)
	}
	if len(report) != 3 || report[0].Name != "first" || report[0].Order != -1 {
		t.Errorf("report is %+v", report)
	}
}

func TestHooksOfOneOrderRunTogether(t *testing.T) {
	s := New(time.Minute)
	meet := make(chan struct{})
	// Each waits for the other: one after the other they would never end.
	_ = s.Hook("a", 1, func(context.Context) error { meet <- struct{}{}; return nil })
	_ = s.Hook("b", 1, func(context.Context) error { <-meet; return nil })
	if _, err := s.Run(); err != nil {
		t.Error(err)
	}
}

func TestEveryOutcomeIsReported(t *testing.T) {
	s := New(time.Minute)
	broken := errors.New("broken")
	_ = s.Hook("fails", 1, func(context.Context) error { return broken })
	_ = s.Hook("panics", 2, func(context.Context) error { panic("boom") })
	_ = s.Hook("works", 3, func(context.Context) error { return nil })
	report, err := s.Run()
	var panicked PanicError
	if !errors.Is(err, broken) || !errors.As(err, &panicked) || panicked.Value != "boom" {
		t.Errorf("error is %v", err)
	}
	if len(report) != 3 || report[2].Err != nil {
		t.Errorf("report is %+v", report)
	}
	text := report.String()
	if !strings.Contains(text, "fails: broken (") || !strings.Contains(text, "works: ok (") {
		t.Errorf("report reads %q", text)
	}
}

func TestOneDeadlineHoldsForAll(t *testing.T) {
	s := New(time.Millisecond)
	stuck := make(chan struct{})
	defer close(stuck)
	_ = s.Hook("waits for its context", 1, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	_ = s.Hook("never returns", 2, func(context.Context) error { <-stuck; return nil })
	called := false
	_ = s.Hook("runs all the same", 3, func(ctx context.Context) error { called = true; return nil })
	report, err := s.Run()
	if !errors.Is(err, context.DeadlineExceeded) || !called {
		t.Errorf("error is %v, last hook called: %v", err, called)
	}
	if !strings.Contains(report[1].Err.Error(), "did not return") || report[2].Err != nil {
		t.Errorf("report is %+v", report)
	}
}

func TestRunRunsOnce(t *testing.T) {
	s := New(time.Minute)
	calls := make(chan struct{}, 10)
	_ = s.Hook("once", 1, func(context.Context) error { calls <- struct{}{}; return nil })
	var all sync.WaitGroup
	for i := 0; i < 5; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			if report, err := s.Run(); err != nil || len(report) != 1 {
				t.Errorf("got %v, %v", report, err)
			}
		}()
	}
	all.Wait()
	if len(calls) != 1 {
		t.Errorf("ran %d times", len(calls))
	}
	if err := s.Hook("late", 1, func(context.Context) error { return nil }); !errors.Is(err, ErrStarted) {
		t.Errorf("got %v", err)
	}
}

func TestTimeoutHasToBePositive(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New(0) did not panic")
		}
	}()
	New(0)
}
