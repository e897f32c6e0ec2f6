// Package workerpool runs a function over what is submitted, on a fixed number of goroutines that share one buffered
// channel. The channel is the queue: its capacity bounds what waits, and a full one is back-pressure.
package workerpool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

var (
	// ErrFull is returned by TrySubmit where the queue is full.
	ErrFull = errors.New("workerpool: the queue is full")
	// ErrClosed is returned for what is submitted after Close began.
	ErrClosed = errors.New("workerpool: closed")
)

// PanicError is a panic of the function, with its stack.
type PanicError struct {
	Value any
	Stack []byte
}

func (e PanicError) Error() string { return fmt.Sprintf("workerpool: panic: %v", e.Value) }

// Config says how a pool works. The zero value of a field is its default.
type Config[T any] struct {
	Workers int // goroutines, >= 1; default 4
	Queue   int // items that may wait beside those being worked on, >= 0; default Workers
	// OnError gets every item whose function failed or panicked, from the worker's goroutine. Nil drops the error;
	// Statistics counts it all the same.
	OnError func(item T, err error)
}

// Statistics is a snapshot of a pool.
type Statistics struct {
	Workers, Capacity int
	Queued, Running   int
	Done, Failed      int64 // Failed is contained in Done
}

// Pool runs a function over items. Make one with New and end it with Close.
type Pool[T any] struct {
	run     func(context.Context, T) error
	onError func(T, error)
	items   chan T
	workers int

	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	closing   chan struct{}
	closeOnce sync.Once
	senders   sync.RWMutex // held for reading while sending, for writing while closing the channel

	running      atomic.Int64
	done, failed atomic.Int64
}

// New starts a pool. run's context ends when ctx does or when Close runs out of time; the pool itself ends with Close
// only. It panics where a field of config is negative.
func New[T any](ctx context.Context, config Config[T], run func(ctx context.Context, item T) error) *Pool[T] {
	if config.Workers < 0 || config.Queue < 0 {
		panic(fmt.Sprintf("workerpool: expected Workers and Queue of 0 or more, got %d and %d", config.Workers, config.Queue))
	}
	if config.Workers == 0 {
		config.Workers = 4
	}
	if config.Queue == 0 {
		config.Queue = config.Workers
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Pool[T]{
		run: run, onError: config.OnError, items: make(chan T, config.Queue), workers: config.Workers,
		ctx: ctx, cancel: cancel, closing: make(chan struct{}),
	}
	p.ended.Add(config.Workers)
	for i := 0; i < config.Workers; i++ {
		go p.work()
	}
	return p
}

// Submit queues item and waits for room while the queue is full. It returns ErrClosed, or the error of ctx where that
// ends first; then the item was not queued.
func (p *Pool[T]) Submit(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.senders.RLock()
	defer p.senders.RUnlock()
	select {
	case <-p.closing:
		return ErrClosed
	default:
	}
	select {
	case p.items <- item:
		return nil
	case <-p.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TrySubmit queues item without waiting. It returns ErrFull or ErrClosed where it cannot.
func (p *Pool[T]) TrySubmit(item T) error {
	p.senders.RLock()
	defer p.senders.RUnlock()
	select {
	case <-p.closing:
		return ErrClosed
	default:
	}
	select {
	case p.items <- item:
		return nil
	default:
		return ErrFull
	}
}

// Close refuses new items, lets what is queued be worked off until ctx ends, then ends the functions' context and
// drops what still waits. It returns when every worker has ended: nil, or an error that wraps that of ctx and says how
// many items were dropped. Calling it again waits for the same end. A function that ignores its context holds it up.
func (p *Pool[T]) Close(ctx context.Context) error {
	p.closeOnce.Do(func() {
		close(p.closing) // wakes the senders that wait, so that the lock below is free soon
		p.senders.Lock()
		close(p.items)
		p.senders.Unlock()
	})
	drained := make(chan struct{})
	go func() { p.ended.Wait(); close(drained) }()
	select {
	case <-drained:
		p.cancel()
		return nil
	case <-ctx.Done():
	}
	p.cancel()
	dropped := 0
	for range p.items { // races with the workers for what is left; either way it is taken once
		dropped++
	}
	<-drained
	return fmt.Errorf("workerpool: %d items dropped: %w", dropped, ctx.Err())
}

// Statistics returns a snapshot.
func (p *Pool[T]) Statistics() Statistics {
	return Statistics{
		Workers: p.workers, Capacity: cap(p.items), Queued: len(p.items), Running: int(p.running.Load()),
		Done: p.done.Load(), Failed: p.failed.Load(),
	}
}

// String is such as <Pool [Workers: 4, Running: 1, Queued: 0/4]>.
func (p *Pool[T]) String() string {
	s := p.Statistics()
	return fmt.Sprintf("<Pool [Workers: %d, Running: %d, Queued: %d/%d]>", s.Workers, s.Running, s.Queued, s.Capacity)
}

func (p *Pool[T]) work() {
	defer p.ended.Done()
	for item := range p.items {
		p.running.Add(1)
		err := p.protect(item)
		p.running.Add(-1)
		if err != nil {
			p.failed.Add(1)
			if p.onError != nil {
				p.onError(item, err)
			}
		}
		p.done.Add(1)
	}
}

func (p *Pool[T]) protect(item T) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = PanicError{value, debug.Stack()}
		}
	}()
	return p.run(p.ctx, item)
}
