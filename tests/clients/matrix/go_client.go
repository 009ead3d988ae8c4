// Uses go-redis as applications do, with its default settings.
//
//	go_client SCENARIO PORT [cluster]
//	go_client sentinel JSON
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	ctx     = context.Background()
	port    = os.Args[2]
	cluster = len(os.Args) > 3 && os.Args[3] == "cluster"
	// The hash tag keeps all keys of this process in one slot, for transactions and scripts.
	prefix = fmt.Sprintf("{%d}:", os.Getpid())
)

// connect creates a client with the library's default settings. If given, change adjusts them for a scenario.
func connect(change func(*redis.UniversalOptions)) redis.UniversalClient {
	options := &redis.UniversalOptions{Addrs: []string{"127.0.0.1:" + port}, IsClusterMode: cluster}
	if change != nil {
		change(options)
	}
	return redis.NewUniversalClient(options)
}

func check(err error, step string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", step, err)
		os.Exit(1)
	}
}

func expect(step string, actual, expected any) {
	if !reflect.DeepEqual(actual, expected) {
		text := fmt.Sprintf("%s: expected %v, got %v", step, expected, actual)
		fmt.Fprintln(os.Stderr, text[:min(len(text), 500)])
		os.Exit(1)
	}
}

func must[T any](value T, err error) func(step string) T {
	return func(step string) T {
		check(err, step)
		return value
	}
}

func value(i int) string {
	return strings.Repeat(strconv.Itoa(i%10), 1024*(1+i%20))
}

func data(r redis.UniversalClient) {
	expect("SET", must(r.Set(ctx, prefix+"k", "\r\n\x00", 0).Result())("SET"), "OK")
	expect("GET", must(r.Get(ctx, prefix+"k").Result())("GET"), "\r\n\x00")
	_, err := r.Get(ctx, prefix+"none").Result()
	expect("GET of no key", err, redis.Nil)
	expect("wrong type", r.LPush(ctx, prefix+"k", "x").Err() != nil, true)
	expect("HSET", must(r.HSet(ctx, prefix+"h", "a", 1, "b", 2).Result())("HSET"), int64(2))
	expect("HGETALL", must(r.HGetAll(ctx, prefix+"h").Result())("HGETALL"), map[string]string{"a": "1", "b": "2"})
	expect("RPUSH", must(r.RPush(ctx, prefix+"l", "a", "b", "c").Result())("RPUSH"), int64(3))
	expect("LRANGE", must(r.LRange(ctx, prefix+"l", 0, -1).Result())("LRANGE"), []string{"a", "b", "c"})
}

func pipeline(r redis.UniversalClient) {
	p := r.Pipeline()
	for i := range 500 {
		p.Set(ctx, prefix+"p"+strconv.Itoa(i), value(i), 0)
		p.Get(ctx, prefix+"p"+strconv.Itoa(i))
	}
	replies := must(p.Exec(ctx))("pipeline")
	expect("replies of the pipeline", len(replies), 1000)
	for i := range 500 {
		expect("reply of the pipeline", replies[2*i+1].(*redis.StringCmd).Val(), value(i))
		p.Del(ctx, prefix+"p"+strconv.Itoa(i))
	}
	must(p.Exec(ctx))("DEL in a pipeline")
}

func transaction(r, other redis.UniversalClient) {
	replies := must(r.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, prefix+"n")
		p.Incr(ctx, prefix+"n")
		p.Get(ctx, prefix+"n")
		return nil
	}))("MULTI")
	expect("EXEC", replies[2].(*redis.StringCmd).Val(), "2")

	watched := func(interfere bool) error {
		return r.Watch(ctx, func(tx *redis.Tx) error {
			must(tx.Get(ctx, prefix+"n").Result())("GET of a watched key")
			if interfere {
				must(other.Set(ctx, prefix+"n", "other", 0).Result())("SET by the other client")
			}
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Set(ctx, prefix+"n", "own", 0)
				return nil
			})
			return err
		}, prefix+"n")
	}
	check(watched(false), "WATCH")
	expect("value after WATCH", r.Get(ctx, prefix+"n").Val(), "own")
	expect("WATCH of a changed key", watched(true), redis.TxFailedErr)
	expect("value after an aborted WATCH", r.Get(ctx, prefix+"n").Val(), "other")
}

func pubSub(r, other redis.UniversalClient) {
	channel := prefix + "channel"
	for _, pattern := range []bool{false, true} {
		var s *redis.PubSub
		if pattern {
			s = r.PSubscribe(ctx, prefix+"chan*")
		} else {
			s = r.Subscribe(ctx, channel)
		}
		_, confirmed := must(s.ReceiveTimeout(ctx, 5*time.Second))("subscribe").(*redis.Subscription)
		expect("subscribe", confirmed, true)
		check(other.Publish(ctx, channel, "m").Err(), "PUBLISH")
		message, heard := must(s.ReceiveTimeout(ctx, 5*time.Second))("message").(*redis.Message)
		expect("message", heard && message.Payload == "m" && message.Channel == channel, true)
		if pattern {
			check(s.PUnsubscribe(ctx, prefix+"chan*"), "PUNSUBSCRIBE")
		} else {
			check(s.Unsubscribe(ctx, channel), "UNSUBSCRIBE")
		}
		gone := must(s.ReceiveTimeout(ctx, 5*time.Second))("unsubscribe").(*redis.Subscription)
		expect("channels left", gone.Count, 0)
		check(s.Close(), "close of the subscription")
	}
}

func blocking(r, other redis.UniversalClient) {
	popped := make(chan error)
	go func() {
		job, err := r.BLPop(ctx, 10*time.Second, prefix+"q").Result()
		if err == nil && job[1] != "job" {
			err = fmt.Errorf("got %v", job)
		}
		popped <- err
	}()
	check(other.RPush(ctx, prefix+"q", "job").Err(), "RPUSH of a job")
	check(<-popped, "BLPOP")

	// By default, go-redis does not end a read when the context ends.
	c := connect(func(o *redis.UniversalOptions) { o.ContextTimeoutEnabled = true })
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	err := c.BLPop(short, 10*time.Second, prefix+"q").Err()
	expect("BLPOP with a short context ends early", err != nil && !errors.Is(err, redis.Nil), true)
	check(c.Set(ctx, prefix+"k", "after", 0).Err(), "SET after an interrupted BLPOP")
	expect("GET after an interrupted BLPOP", c.Get(ctx, prefix+"k").Val(), "after")
	// The interrupted BLPOP must not take later elements.
	check(other.RPush(ctx, prefix+"q", "kept").Err(), "RPUSH after an interrupted BLPOP")
	job := must(c.BLPop(ctx, 5*time.Second, prefix+"q").Result())("second BLPOP")
	expect("second BLPOP", job[1], "kept")
	check(c.Close(), "close")
}

func script(r redis.UniversalClient) {
	text := "return {KEYS[1], ARGV[1] * 2}"
	expected := []any{prefix + "k", int64(42)}
	expect("EVAL", must(r.Eval(ctx, text, []string{prefix + "k"}, 21).Result())("EVAL"), expected)
	s := redis.NewScript(text)
	hash := must(s.Load(ctx, r).Result())("SCRIPT LOAD")
	expect("EVALSHA", must(r.EvalSha(ctx, hash, []string{prefix + "k"}, 21).Result())("EVALSHA"), expected)
	// The server does not have this script: go-redis sends EVALSHA, and EVAL after NOSCRIPT.
	fresh := redis.NewScript("return ARGV[1] .. '" + prefix + "'")
	expect("new script", must(fresh.Run(ctx, r, []string{prefix + "k"}, "x").Result())("new script"), "x"+prefix)
}

func scan(r redis.UniversalClient) {
	// Without the hash tag, so that the keys of a cluster are on all nodes.
	name := fmt.Sprintf("scan:%d:", os.Getpid())
	p := r.Pipeline()
	for i := range 1000 {
		p.Set(ctx, name+strconv.Itoa(i), i, time.Minute)
	}
	must(p.Exec(ctx))("SET of 1,000 keys")
	var found atomic.Int64
	count := func(ctx context.Context, node *redis.Client) error {
		keys := node.Scan(ctx, 0, name+"*", 100).Iterator()
		for keys.Next(ctx) {
			found.Add(1)
		}
		return keys.Err()
	}
	if cluster {
		check(r.(*redis.ClusterClient).ForEachMaster(ctx, count), "SCAN")
	} else {
		check(count(ctx, r.(*redis.Client)), "SCAN")
	}
	expect("keys found by SCAN", found.Load(), int64(1000))
}

func work() {
	r, other := connect(nil), connect(nil)
	data(r)
	pipeline(r)
	transaction(r, other)
	pubSub(r, other)
	blocking(r, other)
	script(r)
	scan(r)
	check(r.Del(ctx, prefix+"k", prefix+"h", prefix+"l", prefix+"n").Err(), "DEL")
	check(r.Close(), "close")
	check(other.Close(), "close")
}

func plain() {
	r := connect(nil)
	add := redis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for i := range 2000 {
		text := strconv.Itoa(i)
		check(r.Set(ctx, prefix+"k", text, 0).Err(), "SET")
		expect("GET", r.Get(ctx, prefix+"k").Val(), text)
		check(r.HSet(ctx, prefix+"h", "f", text).Err(), "HSET")
		expect("LPUSH", must(r.LPush(ctx, prefix+"l", text).Result())("LPUSH"), int64(i+1))
		replies := must(r.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range 10 {
				p.Incr(ctx, prefix+"p")
			}
			return nil
		}))("pipeline")
		expect("pipeline", replies[9].(*redis.IntCmd).Val(), int64(10*i+10))
		expect("EVALSHA", must(add.Run(ctx, r, []string{prefix + "s"}, 2).Int())("EVALSHA"), 2*i+2)
		replies = must(r.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Incr(ctx, prefix+"t")
			p.HGet(ctx, prefix+"h", "f")
			return nil
		}))("transaction")
		expect("transaction", replies[1].(*redis.StringCmd).Val(), text)
	}
	for _, key := range []string{"k", "h", "l", "p", "s", "t"} {
		check(r.Del(ctx, prefix+key).Err(), "DEL")
	}
	check(r.Close(), "close")
}

func setAndGet(r redis.UniversalClient, text string) error {
	if err := r.Set(ctx, prefix+"k", text, 0).Err(); err != nil {
		return err
	}
	got, err := r.Get(ctx, prefix+"k").Result()
	if err == nil {
		expect("GET", got, text)
	}
	return err
}

func connects() {
	for i := range 100 {
		r := connect(nil)
		check(setAndGet(r, strconv.Itoa(i)), "SET and GET")
		check(r.Close(), "close")
	}
}

func stay() {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		close(ended)
	}()
	r := connect(nil)
	tick := time.NewTicker(20 * time.Millisecond)
	up, said := false, false
	for i := 0; ; i++ {
		err := setAndGet(r, strconv.Itoa(i))
		if err == nil && !up {
			fmt.Println("up")
		} else if err != nil && (up || !said) {
			fmt.Println("down")
			fmt.Fprintln(os.Stderr, err)
		}
		up, said = err == nil, true
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

func leftover() {
	r := connect(func(o *redis.UniversalOptions) { o.Password = "left over" })
	check(setAndGet(r, "x"), "SET and GET")
	check(r.Close(), "close")
}

// begin and wait are the scenarios of ../outage.py: what an application sees during an outage.
func begin() {
	outlast(func() error { return connected().Set(ctx, "k", "v", 0).Err() })
	fmt.Println("up")
}

func wait() {
	begin()
	outlast(func() error { return connected().BLPop(ctx, 0, "queue").Err() })
	fmt.Println("popped")
}

// connected returns the only client of the application.
var connected = sync.OnceValue(func() redis.UniversalClient { return connect(nil) })

// outlast repeats a call until it succeeds, and prints each kind of error once.
func outlast(call func() error) {
	told := map[bool]bool{}
	for err := call(); err != nil; err = call() {
		fmt.Fprintln(os.Stderr, err)
		var reply redis.Error
		// The library itself repeats the call after this error.
		connection := !errors.As(err, &reply) || strings.HasPrefix(err.Error(), "LOADING ")
		if !told[connection] {
			told[connection] = true
			if connection {
				fmt.Println("connection error")
			} else {
				fmt.Println("other error:", err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func main() {
	scenarios := map[string]func(){
		"work": work, "plain": plain, "connect": connects, "stay": stay, "leftover": leftover,
		"begin": begin, "wait": wait, "sentinel": sentinel,
	}
	scenarios[os.Args[1]]()
	fmt.Println("ok go-redis", redis.Version())
}
