// Command go-api is a small backend on Go's standard library alone. It keeps the contract of ../CONTRACT.md and adds
// a worker pool over a channel (POST /work, GET /work/{id}) and a streaming endpoint (GET /stream).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit statuses of the program.
const (
	exitOK     = 0
	exitFailed = 1 // the server could not listen, or broke
	exitUsage  = 2 // an environment variable cannot be used
)

func main() {
	// The context ends with the first SIGTERM or SIGINT; everything that runs watches it.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Getenv, os.Stdout, os.Stderr))
}

// run serves until ctx ends and returns the exit status.
func run(ctx context.Context, getenv func(string) string, stdout, stderr io.Writer) int {
	config, err := loadConfig(getenv)
	if err != nil {
		fmt.Fprintln(stderr, "go-api:", err)
		return exitUsage
	}
	log := newLogger(stdout, time.Now)
	listener, err := net.Listen("tcp", config.address())
	if err != nil {
		fmt.Fprintln(stderr, "go-api:", err)
		return exitFailed
	}
	if err := serve(ctx, config, listener, log); err != nil {
		fmt.Fprintln(stderr, "go-api:", err)
		return exitFailed
	}
	return exitOK
}

// serve answers on listener until ctx ends, then lets requests and queued work finish for config.shutdownTimeout.
// Work that outlasts it is cancelled. It returns nil after a shutdown that was asked for.
func serve(ctx context.Context, config config, listener net.Listener, log *logger) error {
	pool := newPool(config.workers, config.queue, config.retention)
	stopping := make(chan struct{})
	api := &api{config: config, pool: pool, stopping: stopping}
	requests := &inFlight{}
	server := &http.Server{
		Handler:           requests.track(withRequestLog(api.routes(), log)),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.message("info", "listening on "+listener.Addr().String())

	select {
	case err := <-failed:
		pool.close(context.Background())
		return err
	case <-ctx.Done():
	}

	log.message("info", "stopping: requests in flight finish")
	close(stopping) // streams end at their next event
	deadline, cancel := context.WithTimeout(context.Background(), config.shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); errors.Is(err, context.DeadlineExceeded) {
		log.message("warning", "requests outlasted SHUTDOWN_TIMEOUT and were cut off")
		if err := server.Close(); err != nil {
			log.message("warning", "closing connections: "+err.Error())
		}
		// Their contexts have ended: the handlers return, and write their lines.
		select {
		case <-requests.drained():
		case <-time.After(time.Second):
		}
	}
	if cancelled := pool.close(deadline); cancelled > 0 {
		log.message("warning", fmt.Sprintf("%d pieces of work outlasted SHUTDOWN_TIMEOUT and were cancelled", cancelled))
	}
	log.message("info", "stopped")
	return nil
}
