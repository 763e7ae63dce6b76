// relay LISTEN TARGET: carries each connection to a target, with splice(2), as io.Copy does
// between two TCP connections.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	for {
		near, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go serve(near.(*net.TCPConn))
	}
}

func serve(near *net.TCPConn) {
	defer near.Close()
	far, err := net.Dial("tcp", os.Args[2])
	if err != nil {
		near.SetLinger(0)
		return
	}
	defer far.Close()
	done := make(chan bool)
	go func() {
		io.Copy(far, near)
		far.(*net.TCPConn).CloseWrite()
		done <- true
	}()
	io.Copy(near, far)
	near.CloseWrite()
	<-done
}
