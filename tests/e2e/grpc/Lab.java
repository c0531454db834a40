// A gRPC client and an echo server. The test fills in the options that are printed for each of them.
import static java.util.concurrent.TimeUnit.*;

import io.grpc.*;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.*;
import java.io.*;

public class Lab {
    static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        public InputStream stream(byte[] bytes) {
            return new ByteArrayInputStream(bytes);
        }

        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    };
    static final MethodDescriptor<byte[], byte[]> ECHO = MethodDescriptor.newBuilder(BYTES, BYTES)
        .setType(MethodDescriptor.MethodType.UNARY).setFullMethodName("lab/Echo").build();

    static void echo(byte[] request, StreamObserver<byte[]> answer) {
        answer.onNext(request);
        answer.onCompleted();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("client")) {
            var channel = ManagedChannelBuilder.forTarget(arguments[1]).usePlaintext() PRINTED_CLIENT .build();
            ClientCalls.blockingUnaryCall(channel, ECHO, CallOptions.DEFAULT, "hello".getBytes());
            System.out.println("answered");
            Thread.sleep(HOURS.toMillis(1));
        }
        var service = ServerServiceDefinition.builder("lab").addMethod(ECHO, ServerCalls.asyncUnaryCall(Lab::echo));
        var builder = NettyServerBuilder.forPort(Integer.parseInt(arguments[1])).addService(service.build());
        if (arguments[0].equals("server")) {
            builder = builder PRINTED_SERVER;
        }
        builder.build().start().awaitTermination();
    }
}
