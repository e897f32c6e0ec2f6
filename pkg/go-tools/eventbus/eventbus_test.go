package eventbus

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

var background = context.Background()

func subscribe(t *testing.T, b *Bus[int], pattern string, options Options) *Subscription[int] {
	t.Helper()
	s, err := b.Subscribe(pattern, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func publish(t *testing.T, b *Bus[int], topic string, value, taken int) {
	t.Helper()
	if n, err := b.Publish(background, topic, value); err != nil || n != taken {
		t.Errorf("publish %d to %s: %d took it, %v; want %d", value, topic, n, err, taken)
	}
}

// drain closes s and returns the values that waited.
func drain(s *Subscription[int]) []int {
	s.Close()
	var values []int
	for event := range s.C() {
		values = append(values, event.Value)
	}
	return values
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, topic string
		matches        bool
	}{
		{"orders", "orders", true},
		{"orders", "orders.eu", false},
		{"orders.eu", "orders", false},
		{"orders.*", "orders.eu", true},
		{"orders.*", "orders", false},
		{"orders.*", "orders.eu.created", false},
		{"*.eu", "orders.eu", true},
		{"*.eu", "orders.us", false},
		{"orders.*.created", "orders.eu.created", true},
		{"orders.>", "orders", false},
		{"orders.>", "orders.eu", true},
		{"orders.>", "orders.eu.created", true},
		{">", "orders", true},
		{">", "a.b.c", true},
		{"*", "a.b", false},
	} {
		p, err := parsePattern(test.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.matches(test.topic); got != test.matches {
			t.Errorf("%s on %s: got %v", test.pattern, test.topic, got)
		}
	}
}

func TestMalformedNamesAreRefused(t *testing.T) {
	b := New[int]()
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.>.b", ">.a", "a*", "é", strings.Repeat("x", 256)} {
		if _, err := b.Subscribe(bad, Options{}); err == nil {
			t.Errorf("pattern %q was taken", bad)
		}
	}
	for _, bad := range []string{"", "a.*", ">", "a..b", "a b", strings.Repeat("x", 256)} {
		if _, err := b.Publish(background, bad, 1); err == nil {
			t.Errorf("topic %q was taken", bad)
		}
	}
	for _, bad := range []Options{{Buffer: -1}, {Policy: -1}, {Policy: 4}} {
		if _, err := b.Subscribe("a", bad); err == nil {
			t.Errorf("options %+v were taken", bad)
		}
	}
}

func TestEverySubscriberGetsWhatMatches(t *testing.T) {
	b := New[int]()
	all, eu, none := subscribe(t, b, ">", Options{}), subscribe(t, b, "orders.eu", Options{}), subscribe(t, b, "x", Options{})
	publish(t, b, "orders.eu", 1, 2)
	publish(t, b, "orders.us", 2, 1)
	if event := <-all.C(); event != (Event[int]{"orders.eu", 1}) {
		t.Errorf("got %+v", event)
	}
	if got := drain(all); !equal(got, []int{2}) {
		t.Errorf("got %v", got)
	}
	if got := drain(eu); !equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
	if got := drain(none); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if s := b.Statistics(); s.Subscriptions != 0 || s.Published != 2 {
		t.Errorf("statistics are %+v", s)
	}
}

func TestDropOldestKeepsTheNewest(t *testing.T) {
	b := New[int]()
	s := subscribe(t, b, "a", Options{Buffer: 2, Policy: DropOldest})
	for i := 1; i <= 5; i++ {
		publish(t, b, "a", i, 1)
	}
	if got := s.String(); got != "<Subscription [a, drop-oldest, Queued: 2/2, Dropped: 3]>" {
		t.Errorf("got %s", got)
	}
	if got := drain(s); !equal(got, []int{4, 5}) || s.Dropped() != 3 || s.Delivered() != 5 || s.Err() != nil {
		t.Errorf("got %v, dropped %d, delivered %d, %v", got, s.Dropped(), s.Delivered(), s.Err())
	}
}

func TestDropNewestKeepsTheOldest(t *testing.T) {
	b := New[int]()
	s := subscribe(t, b, "a", Options{Buffer: 2, Policy: DropNewest})
	for i, taken := range []int{1, 1, 0, 0} {
		publish(t, b, "a", i, taken)
	}
	if got := drain(s); !equal(got, []int{0, 1}) || s.Dropped() != 2 {
		t.Errorf("got %v, dropped %d", got, s.Dropped())
	}
}

func TestDisconnectEndsTheSlow(t *testing.T) {
	b := New[int]()
	slow := subscribe(t, b, "a", Options{Buffer: 1, Policy: Disconnect})
	other := subscribe(t, b, "a", Options{Buffer: 3})
	publish(t, b, "a", 1, 2)
	publish(t, b, "a", 2, 1)
	publish(t, b, "a", 3, 1)
	if !errors.Is(slow.Err(), ErrSlow) {
		t.Errorf("got %v", slow.Err())
	}
	if got := drain(slow); !equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
	if got := drain(other); !equal(got, []int{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
}

func TestBlockWaitsForRoomOrTheContext(t *testing.T) {
	b := New[int]()
	s := subscribe(t, b, "a", Options{Buffer: 1})
	publish(t, b, "a", 1, 1)
	waited := make(chan error, 1)
	go func() {
		_, err := b.Publish(background, "a", 2)
		waited <- err
	}()
	if event := <-s.C(); event.Value != 1 {
		t.Errorf("got %+v", event)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	if n, err := b.Publish(ctx, "a", 3); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d, %v", n, err)
	}
	if got := drain(s); !equal(got, []int{2}) {
		t.Errorf("got %v", got)
	}
}

func TestABlockedPublisherDoesNotKeepOthersWaiting(t *testing.T) {
	b := New[int]()
	blocked := subscribe(t, b, "a", Options{Buffer: 1})
	publish(t, b, "a", 1, 1)
	quick := subscribe(t, b, "a", Options{Buffer: 9, Policy: DropNewest})
	ctx, cancel := context.WithCancel(background)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		if _, err := b.Publish(ctx, "a", 2); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}()
	if event := <-quick.C(); event.Value != 2 { // it has it although the publisher still waits
		t.Errorf("got %+v", event)
	}
	cancel()
	<-waited
	if got := drain(blocked); !equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
}

func TestCloseWakesABlockedPublisher(t *testing.T) {
	for name, end := range map[string]func(*Bus[int], *Subscription[int]){
		"subscription": func(_ *Bus[int], s *Subscription[int]) { s.Close() },
		"bus":          func(b *Bus[int], _ *Subscription[int]) { b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := New[int]()
			s := subscribe(t, b, "a", Options{Buffer: 1})
			publish(t, b, "a", 1, 1)
			waited := make(chan error, 1)
			go func() {
				_, err := b.Publish(background, "a", 2)
				waited <- err
			}()
			end(b, s)
			if err := <-waited; err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestClosedBusRefuses(t *testing.T) {
	b := New[int]()
	s := subscribe(t, b, "a", Options{})
	publish(t, b, "a", 1, 1)
	b.Close()
	b.Close()
	if !errors.Is(s.Err(), ErrClosed) {
		t.Errorf("got %v", s.Err())
	}
	if got := drain(s); !equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
	if _, err := b.Publish(background, "a", 2); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := b.Subscribe("a", Options{}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// Run with -race: publishers, subscribers that come and go, and every policy at once.
func TestManyAtOnce(t *testing.T) {
	const publishers, each = 8, 200
	b := New[int]()
	kept := subscribe(t, b, ">", Options{Buffer: 4})
	lossy := subscribe(t, b, "n.*", Options{Buffer: 2, Policy: DropOldest})
	var all sync.WaitGroup
	for p := 0; p < publishers; p++ {
		all.Add(2)
		go func(p int) {
			defer all.Done()
			for i := 0; i < each; i++ {
				if _, err := b.Publish(background, "n.x", p*each+i); err != nil {
					t.Error(err)
				}
			}
		}(p)
		go func() {
			defer all.Done()
			for i := 0; i < 20; i++ {
				s, err := b.Subscribe(">", Options{Buffer: 1, Policy: Policy(i % 4)})
				if err != nil {
					t.Error(err)
					return
				}
				s.Close()
			}
		}()
	}
	last := map[int]int{}
	for n := 0; n < publishers*each; n++ {
		value := (<-kept.C()).Value
		if before, ok := last[value/each]; ok && value <= before {
			t.Errorf("publisher %d: %d came after %d", value/each, value, before)
		}
		last[value/each] = value
	}
	all.Wait()
	if left := int64(len(drain(lossy))); left+lossy.Dropped() != publishers*each {
		t.Errorf("%d left, %d dropped of %d", left, lossy.Dropped(), publishers*each)
	}
}
