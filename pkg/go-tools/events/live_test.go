package events

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// TestLive runs against a Fairway: FAIRWAY_URL and FAIRWAY_TOKEN. The repository's own tests start one for it.
func TestLive(t *testing.T) {
	if os.Getenv("FAIRWAY_URL") == "" {
		t.Skip("FAIRWAY_URL is not set: no Fairway to test against")
	}
	client, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	publish := func(topic string, n int) {
		t.Helper()
		event, err := NewEvent("counted", n)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Publish(ctx, topic, event); err != nil {
			t.Fatal(err)
		}
	}
	publish("live.before", 0)
	all := client.Subscribe(ctx, SubscribeOptions{Topic: "live.>", LastEventID: "0"})
	before := <-all.C()
	if before.Topic != "live.before" || before.ID == "" || before.Event.Type != "counted" || before.Event.ID == "" {
		t.Errorf("got %+v", before)
	}
	publish("live.a", 1)
	publish("other.a", 2)
	publish("live.b", 3)
	for _, want := range []struct{ topic, data string }{{"live.a", "1"}, {"live.b", "3"}} {
		if got := <-all.C(); got.Topic != want.topic || string(got.Event.Data) != want.data {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	resumed := client.Subscribe(ctx, SubscribeOptions{Topic: "live.*", LastEventID: before.ID})
	if got := <-resumed.C(); got.Topic != "live.a" {
		t.Errorf("got %+v", got)
	}
	var problem *Problem
	if err := client.Publish(ctx, "no topic", Event{Type: "x"}); !errors.As(err, &problem) {
		t.Errorf("got %v", err)
	}
	refused := client.Subscribe(ctx, SubscribeOptions{Topic: "not..valid"})
	if _, open := <-refused.C(); open || !errors.As(refused.Err(), &problem) {
		t.Errorf("got %v", refused.Err())
	}
}
