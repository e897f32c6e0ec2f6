// Package shutdown ends a program in order: the first signal cancels a context, then hooks run by ascending order
// under one deadline, and every hook's outcome is reported.
//
//	ctx, stop := shutdown.Signals(context.Background())
//	defer stop()
//	sequence := shutdown.New(8 * time.Second)
//	sequence.Hook("http", 1, server.Shutdown)
//	sequence.Hook("workers", 2, pool.Close)
//	<-ctx.Done()
//	report, err := sequence.Run()
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// SignalError is the cause of a context that a signal ended; context.Cause returns it.
type SignalError struct{ Signal os.Signal }

func (e SignalError) Error() string { return "received " + e.Signal.String() }

// Signals returns a context that ends with the first of signals (SIGTERM and SIGINT where none is named), and whose
// cause then is a SignalError. A second signal has its usual effect again, so that an impatient Ctrl-C ends the
// program at once. stop gives the signals back and ends the context; calling it twice is fine.
func Signals(parent context.Context, signals ...os.Signal) (ctx context.Context, stop func()) {
	if len(signals) == 0 {
		signals = []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	}
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	signal.Notify(received, signals...)
	go func() {
		select {
		case s := <-received:
			signal.Stop(received)
			cancel(SignalError{s})
		case <-ctx.Done():
			signal.Stop(received)
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		cancel(context.Canceled)
	}
}

// Hook ends one part of the program. It should return when ctx ends; one that does not is left behind and reported.
type Hook func(ctx context.Context) error

// Outcome is what became of a hook.
type Outcome struct {
	Name  string
	Order int
	Took  time.Duration
	Err   error // nil, what the hook returned, a panic as PanicError, or the deadline's error where it did not return
}

// PanicError is a panic of a hook.
type PanicError struct{ Value any }

func (e PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Report lists the outcomes by ascending order, and by registration within one order.
type Report []Outcome

// String is one line a hook, for a log.
func (r Report) String() string {
	var lines strings.Builder
	for _, outcome := range r {
		result := "ok"
		if outcome.Err != nil {
			result = outcome.Err.Error()
		}
		fmt.Fprintf(&lines, "%s: %s (%s)\n", outcome.Name, result, outcome.Took.Round(time.Millisecond))
	}
	return lines.String()
}

type entry struct {
	name  string
	order int
	hook  Hook
}

// Sequence holds hooks. Safe for concurrent use.
type Sequence struct {
	timeout time.Duration

	mu     sync.Mutex
	hooks  []entry
	ran    bool
	done   chan struct{}
	report Report
	err    error
}

// ErrStarted is returned for a hook that comes after Run began.
var ErrStarted = errors.New("shutdown: expected hooks before Run, it has begun")

// New returns an empty sequence whose hooks have timeout (> 0) together. It panics where timeout is not positive.
func New(timeout time.Duration) *Sequence {
	if timeout <= 0 {
		panic(fmt.Sprintf("shutdown: expected a timeout above 0, got %s", timeout))
	}
	return &Sequence{timeout: timeout, done: make(chan struct{})}
}

// Hook adds a hook. Those of a lower order run first, those of one order together. It returns ErrStarted once Run has
// begun: what is opened that late has to be closed by whoever opened it.
func (s *Sequence) Hook(name string, order int, hook Hook) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran {
		return ErrStarted
	}
	s.hooks = append(s.hooks, entry{name, order, hook})
	return nil
}

// Run runs the hooks and returns the report, and their errors joined. All share one deadline; after it the hooks that
// are left still run, with a context that has ended, so that each can at least close what it holds. Later and
// concurrent calls wait for the first and return what it returned.
func (s *Sequence) Run() (Report, error) {
	s.mu.Lock()
	if s.ran {
		s.mu.Unlock()
		<-s.done
		return s.report, s.err
	}
	s.ran = true
	hooks := append([]entry(nil), s.hooks...)
	s.mu.Unlock()
	defer close(s.done)

	sort.SliceStable(hooks, func(i, j int) bool { return hooks[i].order < hooks[j].order })
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	for len(hooks) > 0 {
		same := 1
		for same < len(hooks) && hooks[same].order == hooks[0].order {
			same++
		}
		s.report = append(s.report, runTogether(ctx, hooks[:same])...)
		hooks = hooks[same:]
	}
	var errs []error
	for _, outcome := range s.report {
		if outcome.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", outcome.Name, outcome.Err))
		}
	}
	s.err = errors.Join(errs...)
	return s.report, s.err
}

// lastWord is how long a hook may take to return once the deadline has passed.
const lastWord = 100 * time.Millisecond

func runTogether(ctx context.Context, hooks []entry) []Outcome {
	outcomes := make([]Outcome, len(hooks))
	var all sync.WaitGroup
	for i, e := range hooks {
		all.Add(1)
		go func(i int, e entry) {
			defer all.Done()
			started := time.Now()
			returned := make(chan error, 1) // buffered: a hook that returns too late does not leak
			go func() {
				defer func() {
					if value := recover(); value != nil {
						returned <- PanicError{value}
					}
				}()
				returned <- e.hook(ctx)
			}()
			outcomes[i] = Outcome{Name: e.name, Order: e.order, Err: await(ctx, returned), Took: time.Since(started)}
		}(i, e)
	}
	all.Wait()
	return outcomes
}

func await(ctx context.Context, returned <-chan error) error {
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(lastWord)
	defer timer.Stop()
	select {
	case err := <-returned:
		return err
	case <-timer.C:
		return fmt.Errorf("did not return: %w", ctx.Err())
	}
}
