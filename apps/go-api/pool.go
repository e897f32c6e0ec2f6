package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
)

// maxBelow bounds one piece of work: a sieve of 5 MB, some tens of milliseconds.
const maxBelow = 5_000_000

// States of a piece of work, in their order.
const (
	stateQueued    = "queued"
	stateRunning   = "running"
	stateDone      = "done"
	stateCancelled = "cancelled"
)

var (
	errQueueFull = errors.New("the queue is full, try again later")
	errStopping  = errors.New("this instance is stopping, try again")
)

// view is a piece of work as clients see it.
type view struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Below  int    `json:"below"`
	Result *int   `json:"result,omitempty"` // number of primes below Below, when done
}

// pool runs work on a fixed number of goroutines that share one buffered channel. The channel is the queue: its
// capacity bounds what may wait, and closing it is how the workers learn that nothing more comes.
type pool struct {
	tasks  chan string // ids; the work itself lives in known
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	known     map[string]*view
	finished  []string // ids in order of finishing; at most retention
	retention int
}

func newPool(workers, queue, retention int) *pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pool{
		tasks: make(chan string, queue), ctx: ctx, cancel: cancel,
		known: map[string]*view{}, retention: retention,
	}
	p.ended.Add(workers)
	for i := 0; i < workers; i++ {
		go p.work()
	}
	return p
}

// submit queues a piece of work without waiting: errQueueFull or errStopping where it cannot.
func (p *pool) submit(below int) (view, error) {
	var random [12]byte
	if _, err := rand.Read(random[:]); err != nil {
		return view{}, err
	}
	item := &view{ID: hex.EncodeToString(random[:]), State: stateQueued, Below: below}
	// The lock is held over the send so that close cannot close the channel in between; the send never blocks.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return view{}, errStopping
	}
	select {
	case p.tasks <- item.ID:
		p.known[item.ID] = item
		return *item, nil
	default:
		return view{}, errQueueFull
	}
}

// lookup returns a copy of the piece of work with that id, if it is waiting, running or among the last finished.
func (p *pool) lookup(id string) (view, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	item, ok := p.known[id]
	if !ok {
		return view{}, false
	}
	return *item, true
}

// close refuses new work, lets what is queued finish until ctx ends, then cancels the rest. It returns when every
// worker has ended, with the number of pieces that were cancelled. Further calls find nothing left to do.
func (p *pool) close(ctx context.Context) int {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.tasks)
	}
	p.mu.Unlock()
	drained := make(chan struct{})
	go func() { p.ended.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-ctx.Done():
	}
	p.cancel()
	<-drained
	p.mu.Lock()
	defer p.mu.Unlock()
	cancelled := 0
	for _, item := range p.known {
		if item.State == stateCancelled {
			cancelled++
		}
	}
	return cancelled
}

func (p *pool) work() {
	defer p.ended.Done()
	for id := range p.tasks {
		below := p.start(id)
		count, err := countPrimes(p.ctx, below)
		p.finish(id, count, err)
	}
}

func (p *pool) start(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[id].State = stateRunning
	return p.known[id].Below
}

func (p *pool) finish(id string, count int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	item := p.known[id]
	if err != nil {
		item.State = stateCancelled
	} else {
		item.State, item.Result = stateDone, &count
	}
	p.finished = append(p.finished, id)
	if len(p.finished) > p.retention {
		delete(p.known, p.finished[0])
		p.finished = p.finished[1:]
	}
}

// countPrimes counts the primes below n with the sieve of Eratosthenes; it gives up when ctx ends.
func countPrimes(ctx context.Context, n int) (int, error) {
	composite := make([]bool, max(n, 2))
	count := 0
	for i := 2; i < n; i++ {
		if i%4096 == 2 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if composite[i] {
			continue
		}
		count++
		for j := i * i; j < n; j += i {
			composite[j] = true
		}
	}
	return count, nil
}
