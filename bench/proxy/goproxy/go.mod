module fairway.dev/bench/goproxy

go 1.21
