import java.io.IOException;
import java.net.Socket;
import java.util.Arrays;
import java.util.Random;

/** Echo.java HOST PORT BYTES: sends bytes, half-closes, and says whether they all come back. */
public class Echo {
    public static void main(String[] arguments) throws Exception {
        byte[] sent = new byte[Integer.parseInt(arguments[2])];
        new Random().nextBytes(sent);
        // An IPv6 socket, also for an IPv4 address: that is how Java does it.
        try (Socket socket = new Socket(arguments[0], Integer.parseInt(arguments[1]))) {
            IOException[] failure = new IOException[1];
            Thread sender = new Thread(() -> {
                try {
                    socket.getOutputStream().write(sent);
                    socket.shutdownOutput();
                } catch (IOException error) {
                    // A reset is told once, to whoever asks first.
                    failure[0] = error;
                }
            });
            sender.start();
            byte[] received = socket.getInputStream().readAllBytes();
            sender.join();
            if (failure[0] != null) {
                throw failure[0];
            }
            System.out.println((Arrays.equals(sent, received) ? "equal " : "different ")
                    + socket.getInetAddress().getHostAddress());
        } catch (IOException error) {
            System.out.println("refused " + error.getMessage());
        }
    }
}
