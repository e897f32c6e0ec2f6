// Package rest speaks to Fairway's HTTP API: base address, bearer token, JSON in and out, problem+json as errors.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	maxAnswer  = 64 << 20 // bytes of a JSON answer
	maxProblem = 1 << 20  // bytes of an error's body
	// Timeout is how long one request may take where its context sets nothing shorter; a long poll adds its wait.
	Timeout = 30 * time.Second
)

// Problem is an answer of 400 or above (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"` // stable and dotted, such as jobs.not_found
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
	Field  string `json:"field"`
}

func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Code != "" {
		text = p.Code + ": " + text
	}
	return fmt.Sprintf("fairway: %s (%d)", text, p.Status)
}

// Temporary reports whether the same request may succeed later.
func (p *Problem) Temporary() bool {
	return p.Status >= 500 || p.Status == http.StatusTooManyRequests || p.Status == http.StatusRequestTimeout
}

// Temporary reports whether trying again makes sense: an unreachable server, or a Problem that says so.
func Temporary(err error) bool {
	var problem *Problem
	if errors.As(err, &problem) {
		return problem.Temporary()
	}
	var failed *url.Error
	return errors.As(err, &failed) && !errors.Is(err, context.Canceled)
}

// Client sends requests. Safe for concurrent use.
type Client struct {
	base  string // without a slash at its end
	token string
	HTTP  *http.Client
}

// New returns a client for the API at address, such as http://127.0.0.1:7070; an empty token sends none.
func New(address, token string) (*Client, error) {
	parsed, err := url.Parse(address)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
		return nil, fmt.Errorf("fairway: expected an address such as http://127.0.0.1:7070, got %q", address)
	}
	base := strings.TrimSuffix(strings.TrimRight(parsed.Scheme+"://"+parsed.Host+parsed.Path, "/"), "/v1")
	return &Client{base: base, token: token, HTTP: &http.Client{}}, nil
}

// FromEnvironment returns a client for the Fairway that hosts this program: FAIRWAY_URL and FAIRWAY_TOKEN.
func FromEnvironment() (*Client, error) {
	address := os.Getenv("FAIRWAY_URL")
	if address == "" {
		return nil, errors.New("fairway: expected FAIRWAY_URL in the environment; Fairway sets it for the apps it hosts")
	}
	return New(address, os.Getenv("FAIRWAY_TOKEN"))
}

// Open sends a request and returns the answer, whose body the caller closes; 400 and above is a *Problem.
// body is encoded as JSON unless nil. path starts with a slash and is escaped.
func (c *Client) Open(ctx context.Context, method, path string, body any, headers map[string]string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("fairway: the request cannot be encoded: %w", err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+"/v1"+path, content)
	if err != nil {
		return nil, fmt.Errorf("fairway: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fairway: %w", err)
	}
	if answer.StatusCode < 400 {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, problemOf(answer)
}

// Call sends a request and decodes the answer into result unless that is nil. Beside ctx, Timeout plus wait bounds it.
func (c *Client) Call(ctx context.Context, method, path string, body, result any, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout+wait)
	defer cancel()
	answer, err := c.Open(ctx, method, path, body, map[string]string{"Accept": "application/json"})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("fairway: reading the answer of %s %s: %w", method, path, err)
	case len(text) > maxAnswer:
		return fmt.Errorf("fairway: expected an answer of at most %d bytes from %s %s", maxAnswer, method, path)
	case result == nil || len(bytes.TrimSpace(text)) == 0:
		return nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("fairway: expected JSON from %s %s: %w", method, path, err)
	}
	return nil
}

func problemOf(answer *http.Response) error {
	problem := &Problem{}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxProblem))
	if err != nil || json.Unmarshal(text, problem) != nil || problem.Detail == "" {
		// A proxy in between answers in its own words.
		problem.Detail = strings.TrimSpace(fmt.Sprintf("%s %.200s", http.StatusText(answer.StatusCode), text))
	}
	problem.Status = answer.StatusCode
	return problem
}
