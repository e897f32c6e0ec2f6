package main

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// config is what the environment decides.
type config struct {
	host            string
	port            int
	release         string
	shutdownTimeout time.Duration
	workers         int // goroutines that take work from the channel
	queue           int // pieces of work that may wait; more are refused with 503
	retention       int // finished pieces of work that GET /work/{id} still knows
}

func (c config) address() string { return net.JoinHostPort(c.host, strconv.Itoa(c.port)) }

// loadConfig reads the environment through getenv. An empty variable counts as absent.
func loadConfig(getenv func(string) string) (config, error) {
	c := config{host: "127.0.0.1", release: "dev"}
	if host := getenv("HOST"); host != "" {
		c.host = host
	}
	if release := getenv("FAIRWAY_RELEASE"); release != "" {
		c.release = release
	}
	seconds := 0
	for _, number := range []struct {
		name               string
		into               *int
		initial, low, high int
	}{
		{"PORT", &c.port, 8001, 1, 65535},
		{"SHUTDOWN_TIMEOUT", &seconds, 8, 1, 300},
		{"WORKERS", &c.workers, 4, 1, 256},
		{"QUEUE", &c.queue, 64, 1, 100_000},
		{"RETENTION", &c.retention, 1000, 1, 1_000_000},
	} {
		*number.into = number.initial
		text := getenv(number.name)
		if text == "" {
			continue
		}
		value, err := strconv.Atoi(text)
		if err != nil || value < number.low || value > number.high {
			return config{}, fmt.Errorf("expected %s to be a whole number from %d to %d, got: %q",
				number.name, number.low, number.high, text)
		}
		*number.into = value
	}
	c.shutdownTimeout = time.Duration(seconds) * time.Second
	return c, nil
}
