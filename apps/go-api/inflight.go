package main

import (
	"net/http"
	"sync"
)

// inFlight counts the requests that are being handled. http.Server.Close closes their connections but does not wait
// for their handlers, whose log lines would be lost with the process. (A WaitGroup would not do: it must not grow from
// zero while somebody waits.)
type inFlight struct {
	mu    sync.Mutex
	count int
	idle  chan struct{} // closed when the count falls to zero; nil while nobody waits
}

// track counts the requests to next.
func (f *inFlight) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.add(1)
		defer f.add(-1)
		next.ServeHTTP(w, r)
	})
}

// drained returns a channel that is closed once no request is being handled.
func (f *inFlight) drained() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle == nil {
		f.idle = make(chan struct{})
		if f.count == 0 {
			return f.release()
		}
	}
	return f.idle
}

func (f *inFlight) add(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count += n
	if f.count == 0 && f.idle != nil {
		f.release()
	}
}

func (f *inFlight) release() <-chan struct{} {
	idle := f.idle
	close(idle)
	f.idle = nil
	return idle
}
