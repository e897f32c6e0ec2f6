package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestInFlightIsDrainedWhenTheLastHandlerReturns(t *testing.T) {
	f := &inFlight{}
	<-f.drained() // nothing is being handled
	entered, leave := make(chan struct{}), make(chan struct{})
	handler := f.track(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	for i := 0; i < 2; i++ {
		go handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		<-entered
	}
	drained, again := f.drained(), f.drained()
	for i := 0; i < 2; i++ {
		select {
		case <-drained:
			t.Errorf("drained with %d requests left", 2-i)
		default:
		}
		leave <- struct{}{}
	}
	<-drained
	<-again
	<-f.drained()
}

func TestInFlightCountsAHandlerThatPanics(t *testing.T) {
	f := &inFlight{}
	handler := f.track(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() { _ = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	<-f.drained()
}
