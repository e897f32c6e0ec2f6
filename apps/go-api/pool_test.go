package main

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestCountPrimes(t *testing.T) {
	for n, want := range map[int]int{0: 0, 2: 0, 3: 1, 10: 4, 100: 25, 1_000_000: 78498} {
		if got, err := countPrimes(context.Background(), n); err != nil || got != want {
			t.Errorf("below %d: got %d, %v, want %d", n, got, err, want)
		}
	}
}

func TestCountPrimesGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := countPrimes(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestPoolRunsEverythingOnce(t *testing.T) {
	p := newPool(8, 500, 500)
	var submitters sync.WaitGroup
	for i := 0; i < 10; i++ {
		submitters.Add(1)
		go func() {
			defer submitters.Done()
			for j := 0; j < 50; j++ {
				if _, err := p.submit(10); err != nil {
					t.Errorf("submit: %v", err)
				}
			}
		}()
	}
	submitters.Wait()
	if cancelled := p.close(context.Background()); cancelled != 0 {
		t.Errorf("%d cancelled", cancelled)
	}
	if len(p.known) != 500 {
		t.Errorf("%d known", len(p.known))
	}
	for id, item := range p.known {
		if item.State != stateDone || item.Result == nil || *item.Result != 4 {
			t.Errorf("%s: %+v", id, item)
		}
	}
}

func TestPoolForgetsTheOldest(t *testing.T) {
	p := newPool(1, 10, 3)
	var ids []string
	for i := 0; i < 10; i++ {
		item, err := p.submit(i)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, item.ID)
	}
	p.close(context.Background())
	for i, id := range ids {
		if _, ok := p.lookup(id); ok != (i >= 7) {
			t.Errorf("piece %d: known is %v", i, ok)
		}
	}
}

func TestClosedPoolRefuses(t *testing.T) {
	p := newPool(1, 1, 1)
	p.close(context.Background())
	if _, err := p.submit(1); !errors.Is(err, errStopping) {
		t.Errorf("got %v", err)
	}
	if again := p.close(context.Background()); again != 0 {
		t.Errorf("closing twice cancelled %d", again)
	}
}

func TestCloseCancelsWhatOutlastsItsContext(t *testing.T) {
	p := newPool(1, 1000, 2000)
	for i := 0; i < 900; i++ {
		if _, err := p.submit(maxBelow); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if cancelled := p.close(ctx); cancelled < 890 {
		t.Errorf("%d of 900 cancelled", cancelled)
	}
}
