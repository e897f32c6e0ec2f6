// Package events is a client of Fairway's event bus over HTTP: publish events, and subscribe to topics by server-sent
// events. A subscription reconnects by itself and resumes after the last event that it has handed over.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"fairway.example/go-tools/internal/rest"
)

// Problem is an error that the server answered.
type Problem = rest.Problem

// Event is a CloudEvent (1.0). The server fills in ID, Source and Time where they are empty.
type Event struct {
	ID           string          `json:"id,omitempty"`
	Source       string          `json:"source,omitempty"`
	Type         string          `json:"type"`
	Subject      string          `json:"subject,omitempty"`
	Time         *time.Time      `json:"time,omitempty"`
	PartitionKey string          `json:"partitionkey,omitempty"` // events of one key are handed over in order
	Data         json.RawMessage `json:"data,omitempty"`
}

// NewEvent returns an event of kind with data, anything that becomes JSON.
func NewEvent(kind string, data any) (Event, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return Event{}, fmt.Errorf("events: expected data that JSON can carry: %w", err)
	}
	return Event{Type: kind, Data: text}, nil
}

// Client speaks to the event bus. Safe for concurrent use.
type Client struct{ rest *rest.Client }

// New returns a client for the Fairway at address, such as http://127.0.0.1:7070.
func New(address, token string) (*Client, error) {
	r, err := rest.New(address, token)
	if err != nil {
		return nil, err
	}
	return &Client{r}, nil
}

// FromEnvironment returns a client for the Fairway that hosts this program (FAIRWAY_URL, FAIRWAY_TOKEN).
func FromEnvironment() (*Client, error) {
	r, err := rest.FromEnvironment()
	if err != nil {
		return nil, err
	}
	return &Client{r}, nil
}

// Publish hands event to the subscribers of topic. It returns once the server has taken it.
func (c *Client) Publish(ctx context.Context, topic string, event Event) error {
	body := struct {
		SpecVersion string `json:"specversion"`
		Event
	}{"1.0", event}
	return c.rest.Call(ctx, http.MethodPost, "/events/"+url.PathEscape(topic), body, nil, 0)
}

// Message is an event as a subscription hands it over.
type Message struct {
	ID    string // of the message, its offset: what LastEventID resumes after
	Topic string
	Event Event
}

// SubscribeOptions say what to subscribe to.
type SubscribeOptions struct {
	Topic       string        // a topic, or a pattern such as orders.* or orders.>
	LastEventID string        // resume after this message; empty starts with what comes now
	Idle        time.Duration // reconnect after this long without a byte; default 60 s, four times the server's heartbeat
	OnError     func(error)   // told of what the subscription overcomes by itself
}

// ErrSlow is reported to OnError when the server cut the connection off because its buffer was full. Nothing is lost:
// the subscription connects again and resumes.
var ErrSlow = errors.New("events: the subscriber did not keep up and was cut off")

// disconnected is the name of the server's last event to a subscriber that it cuts off.
const disconnected = "fairway.disconnected"

// Subscription hands over messages on C until its context ends or the server refuses it.
type Subscription struct {
	messages chan Message
	last     atomic.Pointer[string]
	since    time.Time // when the first connection was made
	err      error     // written before messages is closed
}

// Subscribe starts a subscription. Range over C, then look at Err. It ends with ctx; a server that is down is tried
// again for ever. Messages wait for the reader; one that falls far behind is cut off by the server and resumes.
func (c *Client) Subscribe(ctx context.Context, options SubscribeOptions) *Subscription {
	if options.Idle <= 0 {
		options.Idle = 60 * time.Second
	}
	if options.OnError == nil {
		options.OnError = func(error) {}
	}
	s := &Subscription{messages: make(chan Message)}
	s.last.Store(&options.LastEventID)
	go s.follow(ctx, c, options)
	return s
}

// C returns the channel of messages; it is closed when the subscription has ended.
func (s *Subscription) C() <-chan Message { return s.messages }

// LastEventID returns the id of the last message that was handed over, to resume from later.
func (s *Subscription) LastEventID() string { return *s.last.Load() }

// Err returns why the subscription ended: the error of its context, or the server's refusal. Call it once C is closed.
func (s *Subscription) Err() error { return s.err }

func (s *Subscription) follow(ctx context.Context, client *Client, options SubscribeOptions) {
	defer close(s.messages)
	retry, failures := time.Second, 0
	for {
		got, err := s.connect(ctx, client, options, &retry)
		switch {
		case ctx.Err() != nil:
			s.err = ctx.Err()
			return
		case !isTemporary(err):
			s.err = err
			return
		case got:
			failures = 0
		}
		options.OnError(err)
		timer := time.NewTimer(pauseAfter(failures, retry))
		failures++
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			s.err = ctx.Err()
			return
		}
	}
}

// maxRetry bounds the pause that a server may ask for.
const maxRetry = 5 * time.Minute

// droppedError is the end of a connection that had been made.
type droppedError struct{ err error }

func (e *droppedError) Error() string { return "events: the connection ended: " + e.err.Error() }
func (e *droppedError) Unwrap() error { return e.err }

func isTemporary(err error) bool {
	var dropped *droppedError
	return errors.As(err, &dropped) || errors.Is(err, ErrSlow) || rest.Temporary(err)
}

// pauseAfter is the time before another connection: retry, doubled with each failure in a row up to 30 s or retry
// itself where that is longer, times 0.5 to 1 so that many subscribers do not come back in one moment.
func pauseAfter(failures int, retry time.Duration) time.Duration {
	longest := max(30*time.Second, retry)
	if failures < 16 {
		longest = min(longest, retry<<failures)
	}
	return time.Duration(float64(longest) * (0.5 + rand.Float64()/2))
}

// connect follows one connection to its end, which always is an error, and reports whether anything came over it.
func (s *Subscription) connect(ctx context.Context, client *Client, options SubscribeOptions, retry *time.Duration) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(options.Idle, cancel)
	defer idle.Stop()
	headers := map[string]string{"Accept": "text/event-stream"}
	if last := s.LastEventID(); last != "" {
		headers["Last-Event-ID"] = last
	}
	query := url.Values{"topic": {options.Topic}}
	if s.LastEventID() == "" && !s.since.IsZero() {
		// Connected before, but nothing came that could be resumed after: what was published since is still wanted.
		query.Set("since", fmt.Sprintf("-%.3f", time.Since(s.since).Seconds()))
	}
	before := time.Now() // not after the answer: what came in between belongs to the subscription
	answer, err := client.rest.Open(ctx, http.MethodGet, "/events?"+query.Encode(), nil, headers)
	if err != nil {
		if ctx.Err() != nil {
			err = &droppedError{fmt.Errorf("no answer within %s", options.Idle)}
		}
		return false, err
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return false, fmt.Errorf("events: expected text/event-stream from the server, got %q", kind)
	}
	if s.since.IsZero() {
		s.since = before
	}
	frames := newReader(answer.Body, func() { idle.Reset(options.Idle) })
	got := false
	for {
		frame, err := frames.next()
		if frame.retry > 0 {
			*retry = min(frame.retry, maxRetry)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("nothing came for %s", options.Idle)
			}
			return got, &droppedError{err}
		}
		got = true
		if frame.data == "" {
			continue
		}
		if frame.event == disconnected {
			return got, ErrSlow
		}
		var envelope struct {
			Topic string `json:"topic"`
			Event *Event `json:"event"`
		}
		if err := json.Unmarshal([]byte(frame.data), &envelope); err != nil || envelope.Event == nil {
			options.OnError(fmt.Errorf("events: expected an event with its topic in message %q, got %.80q", frame.id, frame.data))
			continue
		}
		message := Message{ID: frame.id, Topic: envelope.Topic, Event: *envelope.Event}
		idle.Stop() // the time that the reader takes is not the server's silence
		select {
		case s.messages <- message:
			last := frame.id
			s.last.Store(&last)
		case <-ctx.Done():
			return got, &droppedError{ctx.Err()}
		}
		idle.Reset(options.Idle)
	}
}
