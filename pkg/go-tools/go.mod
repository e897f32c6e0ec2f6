module fairway.example/go-tools

go 1.21
