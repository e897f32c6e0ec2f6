package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"fairway.example/go-tools/internal/rest"
)

// Handler works on one job. What it returns becomes the job's result; an error fails the attempt, which is retried
// with the job's backoff. Its context ends when the job times out, is cancelled or lost, or the worker has to stop;
// context.Cause says which.
type Handler func(ctx context.Context, job Lease) (any, error)

// ErrStopping is the cause of a handler's context when the worker's time to drain is over. The job is handed back.
var ErrStopping = errors.New("jobs: the worker stops")

// verdictError is an error that decides what becomes of the job.
type verdictError struct {
	err     error
	failure Failure
	snooze  *time.Duration
}

func (e *verdictError) Error() string { return e.err.Error() }
func (e *verdictError) Unwrap() error { return e.err }

// Discard makes err final: no further attempt.
func Discard(err error) error {
	return &verdictError{err: err, failure: Failure{Error: err.Error(), Discard: true}}
}

// RetryIn makes the next attempt come after delay.
func RetryIn(delay time.Duration, err error) error {
	return &verdictError{err: err, failure: Failure{Error: err.Error(), RetryIn: &delay}}
}

// SnoozeFor puts the job off by delay; the attempt is not charged.
func SnoozeFor(delay time.Duration) error {
	return &verdictError{err: fmt.Errorf("jobs: snoozed for %s", delay), snooze: &delay}
}

// WorkerConfig says how a Worker works. The zero value of a field is its default.
type WorkerConfig struct {
	Queue       string        // default "default"
	Concurrency int           // jobs at once; default 8
	Lease       time.Duration // renewed at a third of it; default 30 s
	Poll        time.Duration // how long the server waits for a job; default 10 s
	Drain       time.Duration // how long running jobs may take once Run's context has ended; default 8 s
	Name        string        // unique among workers; default host name, process id and a random number
	OnError     func(error)   // told what the worker overcomes by itself, such as an unreachable server
}

// Worker leases jobs and runs their handlers.
type Worker struct {
	client   *Client
	config   WorkerConfig
	handlers map[string]Handler
	// ticks says when to send a heartbeat, until stop is called; tests say it themselves.
	ticks func(interval time.Duration) (ticks <-chan time.Time, stop func())
}

func systemTicks(interval time.Duration) (<-chan time.Time, func()) {
	ticker := time.NewTicker(interval)
	return ticker.C, ticker.Stop
}

// NewWorker returns a worker; add handlers with Handle before Run. It panics where a number of config is negative.
func NewWorker(client *Client, config WorkerConfig) *Worker {
	if config.Concurrency < 0 || config.Lease < 0 || config.Poll < 0 || config.Drain < 0 {
		panic(fmt.Sprintf("jobs: expected no negative number in WorkerConfig, got %+v", config))
	}
	if config.Queue == "" {
		config.Queue = "default"
	}
	if config.Concurrency == 0 {
		config.Concurrency = 8
	}
	for _, duration := range []struct {
		value   *time.Duration
		initial time.Duration
	}{{&config.Lease, 30 * time.Second}, {&config.Poll, 10 * time.Second}, {&config.Drain, 8 * time.Second}} {
		if *duration.value == 0 {
			*duration.value = duration.initial
		}
	}
	if config.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		config.Name = fmt.Sprintf("%.150s-%d-%08x", host, os.Getpid(), rand.Uint32())
	}
	if config.OnError == nil {
		config.OnError = func(error) {}
	}
	return &Worker{client: client, config: config, handlers: map[string]Handler{}, ticks: systemTicks}
}

// Handle registers the handler of a kind of job, before Run. A second one for a kind replaces the first.
func (w *Worker) Handle(kind string, handler Handler) { w.handlers[kind] = handler }

// Run works until ctx ends, then takes no more jobs, lets those that run finish for Drain, and hands the rest back. It
// returns nil then, and an error at once where the server refuses the worker (a wrong token, an unknown address);
// a server that is down is waited for. A handler that ignores its context holds Run up.
func (w *Worker) Run(ctx context.Context) error {
	// Handlers outlive ctx by Drain.
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	slots := make(chan struct{}, w.config.Concurrency)
	var running sync.WaitGroup
	failures := 0
	var refused error
	for refused == nil && ctx.Err() == nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		free := 1
		for free < cap(slots) && tryTake(slots) {
			free++
		}
		leased, err := w.lease(ctx, free)
		for _, job := range leased {
			running.Add(1)
			go func(job Lease) {
				defer running.Done()
				defer func() { <-slots }()
				w.work(working, job)
			}(job)
		}
		for i := len(leased); i < free; i++ {
			<-slots
		}
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
		case rest.Temporary(err):
			failures++
			w.config.OnError(err)
			pause(ctx, backoff(failures))
		default:
			refused = err
		}
	}
	drained := make(chan struct{})
	go func() { running.Wait(); close(drained) }()
	timer := time.NewTimer(w.config.Drain)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		stop(ErrStopping)
		<-drained
	}
	return refused
}

// lastAnswer is how long a waiting lease call may take to be answered once Run's context has ended.
const lastAnswer = 2 * time.Second

// lease leases up to free jobs. Where ctx ends meanwhile, the server is asked to answer now: what it answers is ours.
func (w *Worker) lease(ctx context.Context, free int) ([]Lease, error) {
	waiting, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	ended := context.AfterFunc(ctx, func() {
		bounded, done := context.WithTimeout(waiting, lastAnswer)
		defer done()
		if err := w.client.Drain(bounded, w.config.Name); err != nil {
			if waiting.Err() == nil {
				w.config.OnError(fmt.Errorf("draining: %w", err))
			}
			abandon()
			return
		}
		<-bounded.Done() // the answer ends the wait, through abandon
		abandon()
	})
	defer ended()
	return w.client.Lease(waiting, w.config.Queue, LeaseOptions{
		Limit: free, Lease: w.config.Lease, Wait: w.config.Poll, Worker: w.config.Name,
	})
}

func tryTake(slots chan<- struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// work runs one job from its lease to the record of its outcome.
func (w *Worker) work(working context.Context, job Lease) {
	ctx, cancel := context.WithCancelCause(working)
	defer cancel(nil)
	beating := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.beat(ctx, job, cancel, beating)
	}()
	result, err := w.handle(ctx, job)
	close(beating)
	<-ended
	if errors.Is(context.Cause(ctx), ErrLeaseLost) {
		w.config.OnError(fmt.Errorf("job %d: %w", job.ID, ErrLeaseLost))
		return // someone else has it: whatever was said now would be refused
	}
	w.record(job, result, err, context.Cause(ctx))
}

// handle calls the handler; a panic is an error with its stack.
func (w *Worker) handle(ctx context.Context, job Lease) (result any, err error) {
	handler, ok := w.handlers[job.Kind]
	if !ok {
		return nil, fmt.Errorf("this worker has no handler for %q", job.Kind)
	}
	if job.TimeoutS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(job.TimeoutS*float64(time.Second)))
		defer cancel()
	}
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v\n%s", value, debug.Stack())
		}
	}()
	return handler(ctx, job)
}

// beat renews the lease until beating is closed. It ends the handler where the job is lost or cancelled, and where no
// renewal came through for a whole lease: then someone else may have the job.
func (w *Worker) beat(ctx context.Context, job Lease, cancel context.CancelCauseFunc, beating <-chan struct{}) {
	ticks, stop := w.ticks(max(w.config.Lease/3, time.Millisecond))
	defer stop()
	renewed := time.Now()
	for {
		select {
		case <-beating:
			return
		case <-ticks:
		}
		started := time.Now()
		bounded, done := context.WithDeadline(context.WithoutCancel(ctx), renewed.Add(w.config.Lease))
		err := w.client.Heartbeat(bounded, job, w.config.Lease)
		done()
		switch {
		case err == nil:
			renewed = started
		case errors.Is(err, ErrLeaseLost), errors.Is(err, ErrCancelled):
			cancel(err)
			return
		default:
			w.config.OnError(fmt.Errorf("job %d: heartbeat: %w", job.ID, err))
			if time.Since(renewed) >= w.config.Lease {
				cancel(ErrLeaseLost)
				return
			}
		}
	}
}

// record tells the server what became of the job, again while it is unreachable and the lease may still be held.
func (w *Worker) record(job Lease, result any, err, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.config.Lease)
	defer cancel()
	var decided *verdictError
	say := func() error { return w.client.Complete(ctx, job, result) }
	switch {
	case err == nil:
	case errors.Is(cause, ErrStopping):
		say = func() error { return w.client.Release(ctx, job) }
	case errors.Is(cause, ErrCancelled):
		say = func() error { return w.client.Stop(ctx, job) }
	case errors.As(err, &decided) && decided.snooze != nil:
		say = func() error { return w.client.Snooze(ctx, job, *decided.snooze) }
	case errors.As(err, &decided):
		say = func() error { return w.client.Fail(ctx, job, decided.failure) }
	default:
		say = func() error { return w.client.Fail(ctx, job, Failure{Error: err.Error()}) }
	}
	for failures := 1; ; failures++ {
		told := say()
		if told == nil || errors.Is(told, ErrCancelled) {
			return
		}
		w.config.OnError(fmt.Errorf("job %d: recording its outcome: %w", job.ID, told))
		if !rest.Temporary(told) || !pause(ctx, backoff(failures)) {
			return
		}
	}
}

// backoff returns the pause after that many failures in a row: 0.1 s doubled each time, at most 10 s, times 0.5 to 1.
func backoff(failures int) time.Duration {
	longest := 10 * time.Second
	if failures < 8 {
		longest = min(longest, 100*time.Millisecond<<(failures-1))
	}
	return time.Duration(float64(longest) * (0.5 + rand.Float64()/2))
}

// pause reports whether it waited in full; false is that ctx ended.
func pause(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
