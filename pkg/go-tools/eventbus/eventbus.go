// Package eventbus hands events from publishers to subscribers inside one process, over channels. Topics are
// dot-separated words; patterns are those of Fairway's own bus (and of NATS): "*" stands for one word, a closing ">"
// for one or more. What happens to a subscriber that does not keep up is that subscriber's choice.
package eventbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Policy says what happens to an event when a subscriber's buffer is full.
type Policy int

const (
	// Block lets the publisher wait until there is room, or its context ends.
	Block Policy = iota
	// DropOldest makes room by dropping the event that waits longest.
	DropOldest
	// DropNewest drops the event that comes.
	DropNewest
	// Disconnect ends the subscription; Err then is ErrSlow.
	Disconnect
)

func (p Policy) String() string {
	switch p {
	case Block:
		return "block"
	case DropOldest:
		return "drop-oldest"
	case DropNewest:
		return "drop-newest"
	case Disconnect:
		return "disconnect"
	}
	return fmt.Sprintf("Policy(%d)", int(p))
}

var (
	// ErrClosed is returned by a bus that was closed.
	ErrClosed = errors.New("eventbus: closed")
	// ErrSlow is why a subscription with the policy Disconnect ended.
	ErrSlow = errors.New("eventbus: the subscriber did not keep up")
)

// Event is what subscribers get.
type Event[T any] struct {
	Topic string
	Value T
}

// Options of a subscription. The zero value is a buffer of 16 and the policy Block.
type Options struct {
	Buffer int // events that may wait, >= 1; 0 is 16
	Policy Policy
}

// Bus connects publishers and subscribers of values of one type. Safe for concurrent use.
type Bus[T any] struct {
	mu            sync.RWMutex
	subscriptions map[*Subscription[T]]struct{}
	closed        bool
	published     atomic.Int64
}

// New returns an empty bus.
func New[T any]() *Bus[T] {
	return &Bus[T]{subscriptions: map[*Subscription[T]]struct{}{}}
}

// Subscription is one subscriber's end. Range over C; Close it when done.
type Subscription[T any] struct {
	bus     *Bus[T]
	pattern pattern
	policy  Policy
	events  chan Event[T]

	senders   sync.RWMutex // held for reading while sending, for writing while closing the channel
	closing   chan struct{}
	closeOnce sync.Once
	err       atomic.Pointer[error]

	delivered, dropped atomic.Int64
}

// Subscribe starts a subscription to the topics that match pattern. What was published before is not seen.
func (b *Bus[T]) Subscribe(pattern string, options Options) (*Subscription[T], error) {
	compiled, err := parsePattern(pattern)
	if err != nil {
		return nil, err
	}
	if options.Buffer == 0 {
		options.Buffer = 16
	}
	if options.Buffer < 0 || options.Policy < Block || options.Policy > Disconnect {
		return nil, fmt.Errorf("eventbus: expected a buffer of 1 or more and a known policy, got %d and %s",
			options.Buffer, options.Policy)
	}
	s := &Subscription[T]{
		bus: b, pattern: compiled, policy: options.Policy,
		events: make(chan Event[T], options.Buffer), closing: make(chan struct{}),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	b.subscriptions[s] = struct{}{}
	return s, nil
}

// Publish hands value to every subscription whose pattern matches topic, and returns how many took it. Those that
// never block get it first; then it waits for each that does, until ctx ends: the error then is that of ctx, and the
// rest has not got the event. Events of one goroutine arrive in the order in which it published them.
func (b *Bus[T]) Publish(ctx context.Context, topic string, value T) (int, error) {
	if err := checkTopic(topic); err != nil {
		return 0, err
	}
	b.mu.RLock()
	if b.closed {
		b.mu.RUnlock()
		return 0, ErrClosed
	}
	var at, blocking []*Subscription[T]
	for s := range b.subscriptions {
		switch {
		case !s.pattern.matches(topic):
		case s.policy == Block:
			blocking = append(blocking, s)
		default:
			at = append(at, s)
		}
	}
	b.mu.RUnlock()
	b.published.Add(1)

	event, taken := Event[T]{topic, value}, 0
	for _, s := range append(at, blocking...) {
		ok, err := s.send(ctx, event)
		if err != nil {
			return taken, err
		}
		if ok {
			taken++
		}
	}
	return taken, nil
}

// Close ends every subscription; what waits in their buffers can still be received. Calling it twice is fine.
func (b *Bus[T]) Close() {
	b.mu.Lock()
	b.closed = true
	open := b.subscriptions
	b.subscriptions = map[*Subscription[T]]struct{}{}
	b.mu.Unlock()
	for s := range open {
		s.end(ErrClosed)
	}
}

// Statistics is a snapshot of a bus.
type Statistics struct {
	Subscriptions int
	Published     int64
}

// Statistics returns a snapshot.
func (b *Bus[T]) Statistics() Statistics {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return Statistics{Subscriptions: len(b.subscriptions), Published: b.published.Load()}
}

// C returns the channel of events. It is closed when the subscription has ended and its buffer is empty.
func (s *Subscription[T]) C() <-chan Event[T] { return s.events }

// Delivered returns how many events reached the buffer.
func (s *Subscription[T]) Delivered() int64 { return s.delivered.Load() }

// Dropped returns how many events the policy dropped.
func (s *Subscription[T]) Dropped() int64 { return s.dropped.Load() }

// Err returns why the subscription ended: nil while it lives or after its own Close, ErrSlow or ErrClosed.
func (s *Subscription[T]) Err() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the subscription and wakes publishers that wait for it. Calling it twice is fine.
func (s *Subscription[T]) Close() {
	s.leave()
	s.end(nil)
}

// String is such as <Subscription [orders.>, drop-oldest, Queued: 3/16, Dropped: 0]>.
func (s *Subscription[T]) String() string {
	return fmt.Sprintf("<Subscription [%s, %s, Queued: %d/%d, Dropped: %d]>",
		s.pattern, s.policy, len(s.events), cap(s.events), s.dropped.Load())
}

func (s *Subscription[T]) leave() {
	s.bus.mu.Lock()
	delete(s.bus.subscriptions, s)
	s.bus.mu.Unlock()
}

func (s *Subscription[T]) end(why error) {
	s.closeOnce.Do(func() {
		if why != nil {
			s.err.Store(&why)
		}
		close(s.closing) // wakes publishers that wait, so that the lock below is free soon
		s.senders.Lock()
		close(s.events)
		s.senders.Unlock()
	})
}

// send reports whether the event reached the buffer. The error is that of ctx.
func (s *Subscription[T]) send(ctx context.Context, event Event[T]) (bool, error) {
	s.senders.RLock()
	ok, overrun, err := s.offer(ctx, event)
	s.senders.RUnlock()
	if ok {
		s.delivered.Add(1)
	}
	if overrun { // outside of the lock that ending needs
		s.dropped.Add(1)
		s.leave()
		s.end(ErrSlow)
	}
	return ok, err
}

func (s *Subscription[T]) offer(ctx context.Context, event Event[T]) (ok, overrun bool, err error) {
	select {
	case <-s.closing:
		return false, false, nil
	default:
	}
	select {
	case s.events <- event:
		return true, false, nil
	default:
	}
	switch s.policy {
	case Block:
		select {
		case s.events <- event:
			return true, false, nil
		case <-s.closing:
			return false, false, nil
		case <-ctx.Done():
			return false, false, ctx.Err()
		}
	case DropOldest:
		for {
			select {
			case <-s.events:
				s.dropped.Add(1)
			default: // the subscriber took it meanwhile
			}
			select {
			case s.events <- event:
				return true, false, nil
			default: // another publisher was faster
			}
		}
	case DropNewest:
		s.dropped.Add(1)
		return false, false, nil
	}
	return false, true, nil
}
