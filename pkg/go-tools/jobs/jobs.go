// Package jobs is a client of Fairway's job queue over HTTP: enqueue jobs, and work on them with a Worker.
//
// A leased job is owned by (ID, Fence). Everything a worker says about it carries both; once the lease has run out and
// someone else has the job, the answer is ErrLeaseLost and nothing was changed.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"fairway.example/go-tools/internal/rest"
)

// Problem is an error that the server answered: its Code is stable, such as jobs.not_found.
type Problem = rest.Problem

var (
	// ErrLeaseLost says that the job is no longer the caller's: stop the handler.
	ErrLeaseLost = errors.New("jobs: the lease is lost; the job is no longer this worker's")
	// ErrCancelled says that the job was cancelled and that the handler shall stop.
	ErrCancelled = errors.New("jobs: the job was cancelled")
)

// NewJob is a job as a producer hands it in. Zero fields take the server's defaults.
type NewJob struct {
	Kind        string            `json:"kind"`                   // name of the task
	Args        any               `json:"args,omitempty"`         // anything that becomes JSON
	Priority    *int              `json:"priority,omitempty"`     // 0 (first) to 9 (last)
	DelayS      float64           `json:"delay_s,omitempty"`      // seconds until it is due
	MaxAttempts int               `json:"max_attempts,omitempty"` // 1 to 1000
	TimeoutS    float64           `json:"timeout_s,omitempty"`    // seconds that one attempt may run
	UniqueKey   string            `json:"unique_key,omitempty"`   // at most one live job of the queue holds it
	Meta        map[string]string `json:"meta,omitempty"`         // small strings that travel along
}

// Enqueued is the answer to an enqueue, given after the store's commit.
type Enqueued struct {
	IDs        []int64 `json:"ids"`        // in the order of the jobs
	Duplicates []int64 `json:"duplicates"` // those that existed already, because of a unique key
	Durability string  `json:"durability"` // what the jobs survive: memory, process, fsync or replicated
}

// Job is a job as a reader sees it.
type Job struct {
	ID          int64           `json:"id"`
	Queue       string          `json:"queue"`
	Kind        string          `json:"kind"`
	State       string          `json:"state"` // available, scheduled, running, retryable, completed, cancelled, discarded
	Args        json.RawMessage `json:"args"`
	Attempt     int             `json:"attempt"`
	MaxAttempts int             `json:"max_attempts"`
	Result      json.RawMessage `json:"result"`
	Error       string          `json:"error"`
}

// Final reports whether the job's state will not change by itself any more.
func (j Job) Final() bool {
	return j.State == "completed" || j.State == "cancelled" || j.State == "discarded"
}

// Lease is a claimed job, as its worker sees it.
type Lease struct {
	ID          int64             `json:"id"`
	Fence       int64             `json:"fence"` // proof of ownership
	Queue       string            `json:"queue"`
	Kind        string            `json:"kind"`
	Args        json.RawMessage   `json:"args"`
	Attempt     int               `json:"attempt"` // from 1
	MaxAttempts int               `json:"max_attempts"`
	TimeoutS    float64           `json:"timeout_s"` // 0 is no limit
	Previous    json.RawMessage   `json:"previous"`  // result of the job before it in a chain
	Meta        map[string]string `json:"meta"`
}

// Client speaks to the job queue. Safe for concurrent use.
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

func queuePath(queue, rest string) string { return "/queues/" + url.PathEscape(queue) + rest }

func jobPath(id int64, rest string) string { return "/jobs/" + strconv.FormatInt(id, 10) + rest }

// Enqueue stores one job and returns its id; for a job whose unique key is held, the id of the one that holds it.
func (c *Client) Enqueue(ctx context.Context, queue string, job NewJob) (int64, error) {
	var answer Enqueued
	if err := c.rest.Call(ctx, http.MethodPost, queuePath(queue, "/jobs"), job, &answer, 0); err != nil {
		return 0, err
	}
	if len(answer.IDs) != 1 {
		return 0, fmt.Errorf("jobs: expected one id for one job, got %d", len(answer.IDs))
	}
	return answer.IDs[0], nil
}

// EnqueueMany stores all of jobs, or none.
func (c *Client) EnqueueMany(ctx context.Context, queue string, jobs []NewJob) (Enqueued, error) {
	var answer Enqueued
	body := struct {
		Jobs []NewJob `json:"jobs"`
	}{jobs}
	err := c.rest.Call(ctx, http.MethodPost, queuePath(queue, "/jobs:batch"), body, &answer, 0)
	return answer, err
}

// Get returns a job.
func (c *Client) Get(ctx context.Context, id int64) (Job, error) {
	var job Job
	err := c.rest.Call(ctx, http.MethodGet, jobPath(id, ""), nil, &job, 0)
	return job, err
}

// Result returns a job's ID, State, and Result or Error, once it is final or as it is after wait (at most a minute).
// Check Final.
func (c *Client) Result(ctx context.Context, id int64, wait time.Duration) (Job, error) {
	var job Job
	query := "?wait=" + strconv.FormatFloat(wait.Seconds(), 'f', -1, 64) + "s"
	err := c.rest.Call(ctx, http.MethodGet, jobPath(id, "/result")+query, nil, &job, wait)
	return job, err
}

// LeaseOptions say what to lease.
type LeaseOptions struct {
	Limit  int           // jobs at most, >= 1
	Lease  time.Duration // how long they are the worker's, unless renewed
	Wait   time.Duration // how long the server waits for the first job, at most a minute; 0 answers at once
	Worker string        // 1 to 200 characters: who has the jobs, and whose waiting Drain ends
}

// Lease claims jobs; none is an empty list.
func (c *Client) Lease(ctx context.Context, queue string, options LeaseOptions) ([]Lease, error) {
	body := struct {
		Limit  int     `json:"limit"`
		LeaseS float64 `json:"lease_s"`
		WaitS  float64 `json:"wait_s"`
		Worker string  `json:"worker"`
	}{options.Limit, options.Lease.Seconds(), options.Wait.Seconds(), options.Worker}
	var answer struct {
		Jobs []Lease `json:"jobs"`
	}
	err := c.rest.Call(ctx, http.MethodPost, queuePath(queue, ":lease"), body, &answer, options.Wait)
	return answer.Jobs, err
}

// Heartbeat makes the lease last for another lease. ErrLeaseLost and ErrCancelled tell the handler to stop.
func (c *Client) Heartbeat(ctx context.Context, job Lease, lease time.Duration) error {
	return c.tell(ctx, job, ":heartbeat", map[string]any{"fence": job.Fence, "lease_s": lease.Seconds()})
}

// Complete records the result, anything that becomes JSON. Repeating it is fine.
func (c *Client) Complete(ctx context.Context, job Lease, result any) error {
	return c.tell(ctx, job, ":complete", map[string]any{"fence": job.Fence, "result": result})
}

// Failure says how an attempt failed.
type Failure struct {
	Error   string         // for a person
	Discard bool           // no further attempt, whatever is left
	RetryIn *time.Duration // until the next attempt; nil follows the job's own backoff
}

// Fail records a failed attempt.
func (c *Client) Fail(ctx context.Context, job Lease, failure Failure) error {
	body := map[string]any{"fence": job.Fence, "error": failure.Error, "retry": !failure.Discard}
	if failure.RetryIn != nil {
		body["retry_in_s"] = failure.RetryIn.Seconds()
	}
	return c.tell(ctx, job, ":fail", body)
}

// Drain makes the server answer the waiting Lease calls of a worker now, with nothing. Cancelling such a call instead
// could lose an answer that is on its way, and its jobs would wait until their leases run out.
func (c *Client) Drain(ctx context.Context, worker string) error {
	return c.rest.Call(ctx, http.MethodPost, "/jobs:drain", map[string]string{"worker": worker}, nil, 0)
}

// Release hands the job back: it is available at once, and the attempt is not charged.
func (c *Client) Release(ctx context.Context, job Lease) error {
	return c.tell(ctx, job, ":release", map[string]any{"fence": job.Fence})
}

// Stop confirms that the handler has ended because the job was cancelled.
func (c *Client) Stop(ctx context.Context, job Lease) error {
	return c.tell(ctx, job, ":stop", map[string]any{"fence": job.Fence})
}

// Progress notes how far the job is, 0.0 to 1.0. It does not renew the lease. ErrCancelled tells the handler to stop.
func (c *Client) Progress(ctx context.Context, job Lease, value float64, note string) error {
	return c.tell(ctx, job, ":progress", map[string]any{"fence": job.Fence, "value": value, "note": note})
}

// Snooze puts the job off without charging the attempt.
func (c *Client) Snooze(ctx context.Context, job Lease, delay time.Duration) error {
	return c.tell(ctx, job, ":snooze", map[string]any{"fence": job.Fence, "delay_s": delay.Seconds()})
}

func (c *Client) tell(ctx context.Context, job Lease, action string, body map[string]any) error {
	var answer struct {
		Verdict string `json:"verdict"`
	}
	err := c.rest.Call(ctx, http.MethodPost, jobPath(job.ID, action), body, &answer, 0)
	var problem *Problem
	switch {
	case errors.As(err, &problem) && problem.Code == "jobs.lease_lost", answer.Verdict == "lost":
		return ErrLeaseLost
	case answer.Verdict == "cancel":
		return ErrCancelled
	}
	return err
}
