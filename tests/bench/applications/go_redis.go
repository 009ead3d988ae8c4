// The benchmark's application with go-redis. ../applications.py describes the arguments and the output.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	ctx       = context.Background()
	scenario  = os.Args[1]
	address   = os.Args[3]
	authority = os.Args[4]
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func connect() *redis.Client {
	if address[0] == '/' {
		return redis.NewClient(&redis.Options{Network: "unix", Addr: address})
	}
	options := &redis.Options{Addr: "127.0.0.1:" + address}
	if authority != "" {
		options.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		options.TLSConfig.RootCAs.AppendCertsFromPEM(must(os.ReadFile(authority)))
	}
	return redis.NewClient(options)
}

func get(key string) func(*redis.Client) {
	return func(client *redis.Client) { must(client.Get(ctx, key).Result()) }
}

func pipeline(client *redis.Client) {
	must(client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for range 50 {
			p.Get(ctx, "small")
		}
		return nil
	}))
}

func reconnect(*redis.Client) {
	client := connect()
	must(client.Get(ctx, "small").Result())
	client.Close()
}

// step returns the number of requests of a step, and the step.
func step() (int, func(*redis.Client)) {
	switch scenario {
	case "pipeline":
		return 50, pipeline
	case "large":
		return 1, get("large")
	case "connect":
		return 1, reconnect
	default:
		return 1, get("small")
	}
}

// run repeats the step in one goroutine, or in 50. It returns the time of each step in seconds.
func run(client *redis.Client, step func(*redis.Client), duration time.Duration) (times []float64) {
	tasks := 1
	if scenario == "tasks" {
		tasks = 50
	}
	until := time.Now().Add(duration)
	var running sync.WaitGroup
	var lock sync.Mutex
	for range tasks {
		running.Add(1)
		go func() {
			defer running.Done()
			var own []float64
			for now := time.Now(); now.Before(until); {
				step(client)
				before := now
				now = time.Now()
				own = append(own, now.Sub(before).Seconds())
			}
			lock.Lock()
			defer lock.Unlock()
			times = append(times, own...)
		}()
	}
	running.Wait()
	return times
}

func cpu() float64 {
	var used syscall.Rusage
	must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

func main() {
	duration := time.Duration(must(strconv.ParseFloat(os.Args[2], 64)) * float64(time.Second))
	requests, step := step()
	client := connect()
	run(client, step, duration/4)
	began, used := time.Now(), cpu()
	times := run(client, step, duration)
	wall, used := time.Since(began).Seconds(), cpu()-used
	slices.Sort(times)
	at := func(part float64) float64 { return times[int(float64(len(times))*part)] }
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(times) * requests, "seconds": wall, "cpu": used,
		"latencies": map[string]float64{"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999)},
	}))
}
