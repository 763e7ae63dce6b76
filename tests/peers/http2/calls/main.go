// gRPC's own library as a server and as clients, for the tests in http2.rs.
//
//	calls server ADDRESS MAX-AGE     serves grpc.health.v1; connections end in order after MAX-AGE
//	calls http ADDRESS               serves HTTP/2 with Go's own library
//	calls unary ADDRESS N TIME       N callers, each on a connection of its own, call for TIME
//	calls watch ADDRESS N            N streams on one connection, open at the same time
//
// Clients print what came of their calls, by gRPC's code, as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// The limit for one call.
const patience = 20 * time.Second

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: calls server|http|unary|watch ADDRESS ...")
	}
	address, rest := os.Args[2], os.Args[3:]
	switch os.Args[1] {
	case "server":
		serve(address, duration(rest[0]))
	case "http":
		serveHTTP(address)
	case "unary":
		report(unary(address, number(rest[0]), duration(rest[1])))
	case "watch":
		report(watch(address, number(rest[0])))
	default:
		log.Fatalf("unknown: %s", os.Args[1])
	}
}

func serve(address string, age time.Duration) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	fmt.Println("listening")
	log.Fatal(server.Serve(listener))
}

func serveHTTP(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	answer := func(out http.ResponseWriter, _ *http.Request) { fmt.Fprintln(out, "an answer of some length") }
	server := &http.Server{Handler: http.HandlerFunc(answer), Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	fmt.Println("listening")
	log.Fatal(server.Serve(listener))
}

// What came of calls: their number by code.
type outcomes struct {
	lock    sync.Mutex
	numbers map[string]int
}

func (all *outcomes) add(err error) {
	all.lock.Lock()
	defer all.lock.Unlock()
	all.numbers[status.Code(err).String()]++
	if err != nil {
		log.Print(err)
	}
}

func newOutcomes() *outcomes {
	return &outcomes{numbers: map[string]int{}}
}

func report(all *outcomes) {
	if err := json.NewEncoder(os.Stdout).Encode(all.numbers); err != nil {
		log.Fatal(err)
	}
}

func dial(address string) *grpc.ClientConn {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

func unary(address string, callers int, lasts time.Duration) *outcomes {
	all := newOutcomes()
	var running sync.WaitGroup
	end := time.Now().Add(lasts)
	for range callers {
		running.Go(func() {
			connection := dial(address)
			defer connection.Close()
			client := healthpb.NewHealthClient(connection)
			for time.Now().Before(end) {
				limited, cancel := context.WithTimeout(context.Background(), patience)
				_, err := client.Check(limited, &healthpb.HealthCheckRequest{})
				cancel()
				all.add(err)
			}
		})
	}
	running.Wait()
	return all
}

// Each stream has got its first message before any of them ends.
func watch(address string, streams int) *outcomes {
	all := newOutcomes()
	connection := dial(address)
	defer connection.Close()
	client := healthpb.NewHealthClient(connection)
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range streams {
		stream, err := client.Watch(limited, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		all.add(err)
		if err != nil {
			break
		}
	}
	return all
}

func number(text string) int {
	number, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return number
}

func duration(text string) time.Duration {
	duration, err := time.ParseDuration(text)
	if err != nil {
		log.Fatal(err)
	}
	return duration
}
