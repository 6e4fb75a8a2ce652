import java.io.ByteArrayInputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * Sends requests one after another with the JDK's own client and its defaults, by which it asks every http:// server to
 * upgrade to HTTP/2: java Ask URL [BODY]... A body is POSTed, "-" stands for a GET. Prints each answer's lines as they
 * come, and then its status and protocol. -Dchunks=true sends bodies in chunks, -Dexpect=true asks before them.
 */
public final class Ask {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        // System.out keeps what it has for later, and writes what the locale can.
        var out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        for (String body : List.of(args).subList(1, args.length)) {
            HttpRequest.Builder asked = HttpRequest.newBuilder(URI.create(args[0]));
            if (!body.equals("-")) {
                asked.header("content-type", "application/json").POST(publisher(body));
                asked.expectContinue(Boolean.getBoolean("expect"));
            }
            var answer = client.send(asked.build(), BodyHandlers.ofLines());
            answer.body().forEach(out::println);
            out.println(answer.statusCode() + " " + answer.version());
        }
    }

    /** What has a length is sent with it, a stream in chunks. */
    private static HttpRequest.BodyPublisher publisher(String body) {
        if (!Boolean.getBoolean("chunks")) {
            return BodyPublishers.ofString(body);
        }
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes(StandardCharsets.UTF_8)));
    }
}
