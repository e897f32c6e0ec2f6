package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var background = context.Background()

func serving(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := New(server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestPublish(t *testing.T) {
	client := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got := fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), body)
		want := `POST /v1/events/orders.created Bearer secret {"specversion":"1.0","type":"order_created","subject":"7","data":{"n":1}}`
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	event, err := NewEvent("order_created", map[string]int{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	event.Subject = "7"
	if err := client.Publish(background, "orders.created", event); err != nil {
		t.Error(err)
	}
}

func TestDataThatIsNoJSONIsRefused(t *testing.T) {
	if _, err := NewEvent("x", func() {}); err == nil || !strings.Contains(err.Error(), "expected data") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedPublishIsAProblem(t *testing.T) {
	client := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"code":"events.topic","detail":"expected a topic such as orders.created"}`)
	})
	var problem *Problem
	if err := client.Publish(background, "bad topic", Event{Type: "x"}); !errors.As(err, &problem) || problem.Code != "events.topic" {
		t.Errorf("got %v", err)
	}
}

// connections serves each connection by the next of handlers; the last one serves all that follow.
func connections(t *testing.T, handlers ...func(send func(string), r *http.Request)) *Client {
	t.Helper()
	turn := make(chan int, 1)
	turn <- 0
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		n := <-turn
		turn <- min(n+1, len(handlers)-1)
		w.Header().Set("Content-Type", "text/event-stream")
		handlers[n](func(text string) {
			_, _ = io.WriteString(w, text)
			w.(http.Flusher).Flush()
		}, r)
	})
}

func stay(send func(string), r *http.Request) {
	send(": here\n\n")
	<-r.Context().Done()
}

func message(id int) string {
	event := fmt.Sprintf(`{"specversion":"1.0","type":"t","data":%d}`, id)
	return fmt.Sprintf("id: %d\nevent: t\ndata: {\"topic\":\"orders.created\",\"offset\":%d,\"event\":%s}\n\n", id, id, event)
}

func TestSubscriptionResumesAfterTheLastMessage(t *testing.T) {
	resumed := make(chan string, 1)
	client := connections(t,
		func(send func(string), r *http.Request) {
			if got := r.URL.RequestURI(); got != "/v1/events?topic=orders.%3E" {
				t.Errorf("got %s", got)
			}
			if got := r.Header.Get("Last-Event-ID"); got != "" {
				t.Errorf("got %s", got)
			}
			send("retry: 1\n\n" + message(1) + message(2) + "id: 3\ndata: {\"cut") // and the connection drops
		},
		func(send func(string), r *http.Request) {
			resumed <- r.Header.Get("Last-Event-ID")
			send(message(3))
			stay(send, r)
		},
	)
	ctx, cancel := context.WithCancel(background)
	dropped := make(chan error, 10)
	s := client.Subscribe(ctx, SubscribeOptions{Topic: "orders.>", OnError: func(err error) { dropped <- err }})
	for want := 1; want <= 3; want++ {
		got := <-s.C()
		var n int
		if err := json.Unmarshal(got.Event.Data, &n); err != nil || n != want || got.ID != fmt.Sprint(want) {
			t.Errorf("got %+v, %v", got, err)
		}
		if got.Topic != "orders.created" || got.Event.Type != "t" {
			t.Errorf("got %+v", got)
		}
	}
	if got := <-resumed; got != "2" {
		t.Errorf("resumed after %q", got)
	}
	if err := <-dropped; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	cancel()
	if _, open := <-s.C(); open || !errors.Is(s.Err(), context.Canceled) || s.LastEventID() != "3" {
		t.Errorf("open %v, %v, last %s", open, s.Err(), s.LastEventID())
	}
}

func TestSubscriptionResumesWhereTold(t *testing.T) {
	told := make(chan string, 1)
	client := connections(t, func(send func(string), r *http.Request) {
		told <- r.Header.Get("Last-Event-ID")
		stay(send, r)
	})
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	client.Subscribe(ctx, SubscribeOptions{Topic: "a", LastEventID: "41"})
	if got := <-told; got != "41" {
		t.Errorf("got %q", got)
	}
}

func TestSilentConnectionIsReplaced(t *testing.T) {
	client := connections(t,
		func(send func(string), r *http.Request) { send("retry: 1\n\n"); stay(send, r) },
		func(send func(string), r *http.Request) { send(message(1)); stay(send, r) },
	)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	dropped := make(chan error, 10)
	s := client.Subscribe(ctx, SubscribeOptions{Topic: "a", Idle: 20 * time.Millisecond, OnError: func(err error) {
		select { // a slow machine may replace many
		case dropped <- err:
		default:
		}
	}})
	if got := <-s.C(); got.ID != "1" {
		t.Errorf("got %+v", got)
	}
	if err := <-dropped; !strings.Contains(err.Error(), "20ms") {
		t.Errorf("got %v", err)
	}
}

func TestSubscriberThatIsCutOffResumes(t *testing.T) {
	resumed := make(chan string, 1)
	client := connections(t,
		func(send func(string), _ *http.Request) {
			send("retry: 1\n\n" + message(1) + "id: 9\nevent: fairway.disconnected\ndata: {\"offset\":1}\n\n")
		},
		func(send func(string), r *http.Request) {
			resumed <- r.Header.Get("Last-Event-ID")
			send(message(2))
			stay(send, r)
		},
	)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	reported := make(chan error, 10)
	s := client.Subscribe(ctx, SubscribeOptions{Topic: "a", OnError: func(err error) { reported <- err }})
	first, second := <-s.C(), <-s.C()
	if first.ID != "1" || second.ID != "2" {
		t.Errorf("got %+v, %+v", first, second)
	}
	if got := <-resumed; got != "1" {
		t.Errorf("resumed after %q", got)
	}
	if err := <-reported; !errors.Is(err, ErrSlow) {
		t.Errorf("got %v", err)
	}
}

func TestConnectionThatDropsBeforeAnyMessageLosesNothing(t *testing.T) {
	asked := make(chan string, 2)
	client := connections(t,
		func(send func(string), r *http.Request) { asked <- r.URL.Query().Get("since"); send("retry: 1\n\n") },
		func(send func(string), r *http.Request) { asked <- r.URL.Query().Get("since"); stay(send, r) },
	)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	client.Subscribe(ctx, SubscribeOptions{Topic: "a"})
	if got := <-asked; got != "" {
		t.Errorf("the first connection asked for %q", got)
	}
	if got := <-asked; !strings.HasPrefix(got, "-0.") {
		t.Errorf("the second connection asked for %q", got)
	}
}

func TestWhatIsNoEventIsReportedAndSkipped(t *testing.T) {
	client := connections(t, func(send func(string), r *http.Request) {
		send("data: hello\n\n" + message(1))
		stay(send, r)
	})
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	reported := make(chan error, 10)
	s := client.Subscribe(ctx, SubscribeOptions{Topic: "a", OnError: func(err error) { reported <- err }})
	if got := <-s.C(); got.ID != "1" {
		t.Errorf("got %+v", got)
	}
	if err := <-reported; !strings.Contains(err.Error(), "expected an event with its topic") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedSubscriptionEnds(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"wrong token":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"something else": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t, handler).Subscribe(background, SubscribeOptions{Topic: "a"})
			if _, open := <-s.C(); open || s.Err() == nil {
				t.Errorf("open %v, %v", open, s.Err())
			}
		})
	}
}

func TestPauseAfterGrowsAndIsBounded(t *testing.T) {
	for failures, longest := range map[int]time.Duration{0: time.Second, 3: 8 * time.Second, 1000: 30 * time.Second} {
		for i := 0; i < 100; i++ {
			if got := pauseAfter(failures, time.Second); got < longest/2 || got > longest {
				t.Errorf("after %d: %s", failures, got)
			}
		}
	}
}
