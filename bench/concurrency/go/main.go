// The same flows in Go: CPU time is wall-clock time on one processor (GOMAXPROCS=1), printed as operations a second.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

func flow(n, capacity, pairs int) float64 {
	ch := make(chan int, capacity)
	var wg sync.WaitGroup
	total := make([]int, pairs)
	start := time.Now()
	for pair := 0; pair < pairs; pair++ {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for value := 0; value < n/pairs; value++ {
				ch <- value
			}
		}()
		go func(pair int) {
			defer wg.Done()
			for i := 0; i < n/pairs; i++ {
				total[pair] += <-ch
			}
		}(pair)
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

func pingPong(n int) float64 {
	there, back := make(chan int), make(chan int)
	start := time.Now()
	go func() {
		for i := 0; i < n; i++ {
			back <- <-there
		}
	}()
	for i := 0; i < n; i++ {
		there <- i
		if <-back != i {
			panic("a value came back changed")
		}
	}
	return float64(n) / time.Since(start).Seconds()
}

func main() {
	runtime.GOMAXPROCS(1)
	n, _ := strconv.Atoi(os.Args[1])
	runs, _ := strconv.Atoi(os.Args[2])
	out := map[string][]float64{}
	for run := 0; run < runs; run++ {
		out["buffered 1→1"] = append(out["buffered 1→1"], flow(n, 128, 1))
		out["8→8"] = append(out["8→8"], flow(n, 64, 8))
		out["ping-pong"] = append(out["ping-pong"], pingPong(n/4))
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}
