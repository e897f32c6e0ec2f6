package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	maxSlow     = 10_000   // milliseconds
	maxBody     = 64 << 10 // bytes of POST /work
	bodyTimeout = 10 * time.Second
	maxEvents   = 1000 // of GET /stream
	maxInterval = 1000 // milliseconds between two events
)

// api holds what the handlers share.
type api struct {
	config   config
	pool     *pool
	stopping <-chan struct{} // closed when the server stops: streams end
}

// routes returns the handler of the whole API. Written for Go 1.21, whose ServeMux knows neither methods nor
// wildcards: byMethod and the prefix "/work/" stand in for them.
func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", exactly("/", byMethod{http.MethodGet: a.index}))
	mux.Handle("/healthz", byMethod{http.MethodGet: a.health})
	mux.Handle("/slow", byMethod{http.MethodGet: a.slow})
	mux.Handle("/stream", byMethod{http.MethodGet: a.stream})
	mux.Handle("/work", byMethod{http.MethodPost: a.submit})
	mux.Handle("/work/", byMethod{http.MethodGet: a.lookup})
	return cleanOnly(mux)
}

// cleanOnly answers 404 for paths such as //healthz and /work/../: ServeMux redirects them, with a page of HTML.
func cleanOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if given := strings.TrimSuffix(r.URL.Path, "/"); given != "" && path.Clean(given) != given || r.URL.Path == "" {
			respondError(w, http.StatusNotFound, "nothing at "+r.URL.Path)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// exactly answers 404 for every other path: ServeMux takes "/" for a prefix.
func exactly(only string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != only {
			respondError(w, http.StatusNotFound, "nothing at "+r.URL.Path)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// byMethod picks a handler by the request's method; HEAD goes where GET goes.
type byMethod map[string]http.HandlerFunc

func (m byMethod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if handler, ok := m[method]; ok {
		handler(w, r)
		return
	}
	allowed := make([]string, 0, len(m))
	for name := range m {
		allowed = append(allowed, name)
		if name == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	respondError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not allowed here", r.Method))
}

func (a *api) index(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusOK, struct {
		Service  string `json:"service"`
		Language string `json:"language"`
		Release  string `json:"release"`
	}{"go-api", "go", a.config.release})
}

func (a *api) health(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusOK, map[string]string{"status": "ok"})
}

// slow answers after ms milliseconds, or not at all where the client has gone.
func (a *api) slow(w http.ResponseWriter, r *http.Request) {
	ms, err := intQuery(r, "ms", "", 0, maxSlow)
	if err != nil {
		respondError(w, http.StatusBadRequest, err.Error())
		return
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		respond(w, http.StatusOK, map[string]int{"slept_ms": ms})
	case <-r.Context().Done():
	}
}

// stream sends n server-sent events, interval_ms apart, each as soon as it is due.
func (a *api) stream(w http.ResponseWriter, r *http.Request) {
	n, err := intQuery(r, "n", "10", 1, maxEvents)
	if err != nil {
		respondError(w, http.StatusBadRequest, err.Error())
		return
	}
	interval, err := intQuery(r, "interval_ms", "100", 1, maxInterval)
	if err != nil {
		respondError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	ticker := time.NewTicker(time.Duration(interval) * time.Millisecond)
	defer ticker.Stop()
	for i := 1; i <= n; i++ {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: {\"number\":%d}\n\n", i, i); err != nil {
			return // the client has gone
		}
		if err := control.Flush(); err != nil {
			return
		}
		if i == n {
			break
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		case <-a.stopping:
			// A stream could outlast any grace: it ends early and says why. The client resumes elsewhere.
			_, _ = fmt.Fprint(w, "event: end\ndata: {\"reason\":\"stopping\"}\n\n")
			return
		}
	}
	_, _ = fmt.Fprint(w, "event: end\ndata: {\"reason\":\"done\"}\n\n")
}

// submit queues a piece of work: {"below": 1000} counts the primes below 1000.
func (a *api) submit(w http.ResponseWriter, r *http.Request) {
	var order struct {
		Below *int `json:"below"`
	}
	// A body that trickles in would hold the connection for as long as it likes.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		respondError(w, http.StatusInternalServerError, "no deadline could be set on the connection")
		return
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&order)
	if err == nil && decoder.More() {
		err = errors.New("more than one value")
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		respondError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("expected a body of at most %d bytes", maxBody))
		return
	case err != nil:
		respondError(w, http.StatusBadRequest, fmt.Sprintf(`expected a JSON object such as {"below": 1000}: %v`, err))
		return
	case order.Below == nil || *order.Below < 0 || *order.Below > maxBelow:
		respondError(w, http.StatusBadRequest, fmt.Sprintf(`expected "below" to be a whole number from 0 to %d`, maxBelow))
		return
	}
	view, err := a.pool.submit(*order.Below)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		respondError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Location", "/work/"+view.ID)
	respond(w, http.StatusAccepted, view)
}

func (a *api) lookup(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/work/")
	view, ok := a.pool.lookup(id)
	if !ok {
		respondError(w, http.StatusNotFound,
			fmt.Sprintf("no such work; the last %d finished ones are kept", a.config.retention))
		return
	}
	respond(w, http.StatusOK, view)
}

// intQuery reads a whole number from the query; initial "" makes it required.
func intQuery(r *http.Request, name, initial string, low, high int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		text = initial
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < low || value > high {
		return 0, fmt.Errorf("expected %s to be a whole number from %d to %d, got: %q", name, low, high, text)
	}
	return value, nil
}

func respond(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, `{"error":"the answer could not be encoded"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // fails where the client has gone
}

func respondError(w http.ResponseWriter, status int, sentence string) {
	respond(w, status, map[string]string{"error": sentence})
}
