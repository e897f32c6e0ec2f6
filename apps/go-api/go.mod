module fairway.example/go-api

go 1.21
