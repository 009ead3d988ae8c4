package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// given is the JSON of ../../sentinel/load.py.
type given struct {
	Sentinels        [][2]any
	Name, Key, CA    string
	ServerTLS        bool   `json:"server_tls"`
	SentinelTLS      bool   `json:"sentinel_tls"`
	ServerPassword   string `json:"server_password"`
	SentinelPassword string `json:"sentinel_password"`
}

func (g given) connect(replica bool) *redis.Client {
	options := &redis.FailoverOptions{
		MasterName:       g.Name,
		ReplicaOnly:      replica,
		Password:         g.ServerPassword,
		SentinelPassword: g.SentinelPassword,
	}
	for _, sentinel := range g.Sentinels {
		options.SentinelAddrs = append(options.SentinelAddrs, fmt.Sprintf("%v:%v", sentinel[0], sentinel[1]))
	}
	// The library has one setting for servers and sentinels.
	expect("TLS to the sentinels", g.SentinelTLS, g.ServerTLS)
	if g.ServerTLS {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(must(os.ReadFile(g.CA))("the authority's certificate"))
		options.TLSConfig = &tls.Config{RootCAs: roots}
	}
	return redis.NewFailoverClient(options)
}

// sentinel does what load.py does.
func sentinel() {
	var g given
	check(json.Unmarshal([]byte(os.Args[2]), &g), "JSON")
	var stopped atomic.Bool
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		stopped.Store(true)
	}()
	acknowledged, failed, up := 0, 0, false
	read, errors := map[string]int{}, map[string]int{}
	succeeds := func(err error) bool {
		if err != nil {
			text := fmt.Sprintf("%T: %v", err, err)
			errors[text[:min(len(text), 160)]]++
		}
		return err == nil
	}
	primary, replica := g.connect(false), g.connect(true)
	for ; ; time.Sleep(5 * time.Millisecond) {
		stopping := stopped.Load()
		wrote := succeeds(primary.Incr(ctx, g.Key).Err())
		role, err := replica.Do(ctx, "ROLE").Slice()
		if wrote {
			acknowledged++
		} else {
			failed++
		}
		if !succeeds(err) {
			continue
		}
		read[role[0].(string)]++
		if wrote && !up {
			up = true
			fmt.Println("up")
		}
		if wrote && stopping {
			break
		}
	}
	report := must(json.Marshal(map[string]any{"acknowledged": acknowledged, "failed": failed, "read": read, "errors": errors}))
	fmt.Println(string(report("JSON")))
	os.Exit(0)
}
