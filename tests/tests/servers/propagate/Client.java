import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Java's three ways to connect, each with connections whose bytes must come back (socket, channel) or are what the server
 * says (http). Prints a line for each that went well, and ends with an exception otherwise.
 */
public final class Client {
    private static final int PATIENCE_MS = 20_000;

    /** For each five arguments: the way, host, port, how many, and a size or the server's name. */
    public static void main(String[] args) throws Exception {
        for (int at = 0; at < args.length; at += 5) {
            String host = args[at + 1];
            int port = Integer.parseInt(args[at + 2]);
            int count = Integer.parseInt(args[at + 3]);
            String last = args[at + 4];
            switch (args[at]) {
                case "socket" -> sockets(host, port, count, Integer.parseInt(last));
                case "channel" -> channels(host, port, count, Integer.parseInt(last));
                case "http" -> http(host, port, count, last);
                default -> throw new IllegalArgumentException(args[at]);
            }
        }
    }

    /** The testbed's computable stream, from an offset of each connection's own. */
    private static byte[] stream(int number, int size) {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++) {
            long offset = ((long) number << 32) + i;
            long word = Long.rotateLeft((offset >>> 3) * 0x9e3779b97f4a7c15L, 29);
            bytes[i] = (byte) (word >>> (8 * (offset & 7)));
        }
        return bytes;
    }

    private static void same(byte[] got, byte[] wanted, String what) {
        int at = Arrays.mismatch(got, wanted);
        if (at >= 0) {
            throw new IllegalStateException(what + ": " + got.length + " bytes, the first wrong one at " + at);
        }
    }

    /** Blocking: a thread writes while another one reads. */
    private static void sockets(String host, int port, int count, int size) throws Exception {
        // Daemons: none outlives a failure of the main one.
        ExecutorService threads = Executors.newFixedThreadPool(32, job -> {
            Thread thread = new Thread(job);
            thread.setDaemon(true);
            return thread;
        });
        List<Future<?>> all = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            int number = i;
            all.add(threads.submit(() -> {
                byte[] wanted = stream(number, size);
                try (Socket socket = new Socket()) {
                    socket.setSoTimeout(PATIENCE_MS);
                    socket.connect(new InetSocketAddress(host, port), PATIENCE_MS);
                    CompletableFuture<Void> written = new CompletableFuture<>();
                    Thread writer = new Thread(() -> {
                        try {
                            OutputStream out = socket.getOutputStream();
                            out.write(wanted);
                            socket.shutdownOutput();
                            written.complete(null);
                        } catch (Exception error) {
                            written.completeExceptionally(error);
                        }
                    });
                    writer.setDaemon(true);
                    writer.start();
                    InputStream in = socket.getInputStream();
                    byte[] first = in.readNBytes(1);
                    // What `FIONREAD` says must be there.
                    byte[] ready = in.readNBytes(in.available());
                    byte[] rest = in.readAllBytes();
                    written.get();
                    ByteBuffer got = ByteBuffer.allocate(first.length + ready.length + rest.length);
                    same(got.put(first).put(ready).put(rest).array(), wanted, "socket " + number);
                }
                return null;
            }));
        }
        for (Future<?> one : all) {
            one.get();
        }
        System.out.println(count + " sockets, " + (long) count * size + " bytes");
    }

    /** What a channel has written and read. */
    private static final class State {
        final ByteBuffer out;
        final ByteBuffer in;
        final byte[] wanted;
        final int number;

        State(int number, int size) {
            this.number = number;
            wanted = stream(number, size);
            out = ByteBuffer.wrap(wanted);
            // One more, so that its end is read, too.
            in = ByteBuffer.allocate(size + 1);
        }
    }

    /** Non-blocking: one selector for all. */
    private static void channels(String host, int port, int count, int size) throws Exception {
        try (Selector selector = Selector.open()) {
            for (int i = 0; i < count; i++) {
                SocketChannel channel = SocketChannel.open();
                channel.configureBlocking(false);
                channel.register(selector, SelectionKey.OP_CONNECT, new State(i, size));
                if (channel.connect(new InetSocketAddress(host, port))) {
                    throw new IllegalStateException("connected at once");
                }
            }
            int open = count;
            while (open > 0) {
                if (selector.select(PATIENCE_MS) == 0) {
                    throw new IllegalStateException(open + " channels wait in vain");
                }
                for (SelectionKey key : selector.selectedKeys()) {
                    open -= step(key) ? 1 : 0;
                }
                selector.selectedKeys().clear();
            }
        }
        System.out.println(count + " channels, " + (long) count * size + " bytes");
    }

    /** Says whether that was the last step. */
    private static boolean step(SelectionKey key) throws Exception {
        SocketChannel channel = (SocketChannel) key.channel();
        State state = (State) key.attachment();
        if (key.isConnectable()) {
            channel.finishConnect();
            key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
        }
        if (key.isWritable()) {
            channel.write(state.out);
            if (!state.out.hasRemaining()) {
                channel.shutdownOutput();
                key.interestOps(SelectionKey.OP_READ);
            }
        }
        if (key.isReadable() && channel.read(state.in) < 0) {
            same(Arrays.copyOf(state.in.array(), state.in.position()), state.wanted, "channel " + state.number);
            channel.close();
            return true;
        }
        return false;
    }

    /** Requests of one client, which keeps its connections, and a body there and back. */
    private static void http(String host, int port, int count, String who) throws Exception {
        HttpClient client =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(20)).build();
        String base = "http://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
        List<CompletableFuture<HttpResponse<String>>> all = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            all.add(client.sendAsync(request(base + "/n/" + i).GET().build(), BodyHandlers.ofString()));
        }
        for (int i = 0; i < count; i++) {
            HttpResponse<String> answer = all.get(i).get();
            if (answer.statusCode() != 200 || !answer.body().equals(who + " /n/" + i + "\n")) {
                throw new IllegalStateException(answer.statusCode() + " " + answer.body());
            }
        }
        byte[] body = stream(7, 2_000_000);
        HttpRequest put = request(base + "/files/java").PUT(BodyPublishers.ofByteArray(body)).build();
        int status = client.send(put, BodyHandlers.discarding()).statusCode();
        if (status != 201 && status != 204) {
            throw new IllegalStateException("PUT: " + status);
        }
        same(client.send(request(base + "/files/java").GET().build(), BodyHandlers.ofByteArray()).body(), body, "GET");
        System.out.println(count + 2 + " requests");
    }

    private static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20));
    }
}
