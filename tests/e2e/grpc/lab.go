// A gRPC client and an echo server. The test fills in the options that are printed for each of them.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

type bytes struct{}

func (bytes) Marshal(from interface{}) ([]byte, error)    { return *(from.(*[]byte)), nil }
func (bytes) Unmarshal(data []byte, to interface{}) error { *(to.(*[]byte)) = data; return nil }
func (bytes) Name() string                                { return "bytes" }
func (bytes) String() string                              { return "bytes" }

func echo(_ interface{}, stream grpc.ServerStream) error {
	message := []byte{}
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	return stream.SendMsg(&message)
}

func main() {
	if address := os.Args[2]; os.Args[1] == "client" {
		channel, err := grpc.Dial(address, grpc.WithInsecure(), PRINTED_CLIENT)
		check(err)
		request, answer := []byte("hello"), []byte{}
		check(channel.Invoke(context.Background(), "/lab/Echo", &request, &answer, grpc.ForceCodec(bytes{})))
		fmt.Println("answered")
		time.Sleep(time.Hour)
	} else {
		listener, err := net.Listen("tcp", address)
		check(err)
		options := []grpc.ServerOption{grpc.CustomCodec(bytes{}), grpc.UnknownServiceHandler(echo)}
		if os.Args[1] == "server" {
			options = append(options, PRINTED_SERVER)
		}
		check(grpc.NewServer(options...).Serve(listener))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
