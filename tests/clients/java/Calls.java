import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/** Makes every call with the HTTP client of Java as it is by default, and prints call and outcome of each. */
public class Calls {
    private static final Map<String, String> MODELS =
        Map.of("qualified", "default/demo", "unknown", "missing", "none", "empty", "failover", "fallen", "silence", "slow",
            "late", "late");
    private static final List<String> STREAMS = List.of("stream", "cancel", "silence", "late");
    private static String base;
    private static String text;

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        text = arguments[1];
        HttpClient client = HttpClient.newHttpClient();
        for (String call : List.of("chat", "stream", "qualified", "embeddings", "list", "retrieve", "namespaced", "cancel",
                "unknown", "none", "failover", "silence", "late", "websocket")) {
            String outcome;
            try {
                outcome = made(client, call);
            } catch (Exception failure) {
                outcome = failure.toString();
            }
            System.out.println(call + "\t" + outcome.replace('\n', ' '));
        }
        System.exit(0);
    }

    private static String made(HttpClient client, String call) throws Exception {
        if (call.equals("websocket")) {
            return received(client, call);
        }
        if (STREAMS.contains(call)) {
            return streamed(client, call);
        }
        HttpResponse<String> response = client.send(request(call), BodyHandlers.ofString());
        String body = response.body();
        if (response.statusCode() != 200) {
            return response.statusCode() + " " + body.replaceAll("(?s).*\"code\":\\s*\"([a-z_]+)\".*", "$1");
        }
        String expected = switch (call) {
            case "list", "retrieve" -> "\"id\":\"demo\"";
            case "namespaced" -> "demo\"";
            case "embeddings" -> "\"embedding\": [0.5, 0.25]";
            default -> "\"content\": \"" + text + "\"";
        };
        return body.contains(expected) ? "works" : body;
    }

    private static String streamed(HttpClient client, String call) throws Exception {
        HttpResponse<InputStream> response = client.send(request(call), BodyHandlers.ofInputStream());
        StringBuilder all = new StringBuilder();
        boolean done = false;
        try (BufferedReader lines =
                new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                if (line.startsWith("data: {\"error\"")) {
                    return "event " + line.replaceAll(".*\"code\":\\s*\"([a-z_]+)\".*", "$1");
                }
                int start = line.indexOf("\"content\": \"");
                if (start >= 0) {
                    all.append(line, start + 12, line.indexOf('"', start + 12));
                }
                done |= line.equals("data: [DONE]");
                if (call.equals("cancel") && all.length() > 0) {
                    break; // closing the body drops the connection
                }
            }
        }
        if (call.equals("cancel")) {
            return text.startsWith(all.toString()) && !done ? "works" : all.toString();
        }
        return all.toString().equals(text) && done ? "works" : all.toString();
    }

    private static String received(HttpClient client, String call) throws Exception {
        CompletableFuture<String> first = new CompletableFuture<>();
        WebSocket.Listener listener = new WebSocket.Listener() {
            @Override
            public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
                first.complete(data.toString());
                return null;
            }

            @Override
            public void onError(WebSocket socket, Throwable failure) {
                first.completeExceptionally(failure);
            }
        };
        URI place = URI.create(base.replace("http://", "ws://") + "/v1/realtime?model=demo");
        WebSocket socket = client.newWebSocketBuilder().subprotocols("realtime").header("x-case", "java/" + call)
            .buildAsync(place, listener).join();
        String came = first.join();
        return came.equals(text) && socket.getSubprotocol().equals("realtime") ? "works" : came;
    }

    private static HttpRequest request(String call) {
        String path = switch (call) {
            case "list" -> "/v1/models";
            case "retrieve" -> "/v1/models/demo";
            case "namespaced" -> "/v1/models/default%2Fdemo";
            case "embeddings" -> "/v1/embeddings";
            default -> "/v1/chat/completions";
        };
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(base + path)).header("x-case", "java/" + call);
        if (path.startsWith("/v1/models")) {
            return builder.build();
        }
        String stream = STREAMS.contains(call) ? ", \"stream\": true" : "";
        String asked = call.equals("embeddings")
            ? "\"input\": [\"a\", \"b\"]" : "\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]" + stream;
        String body = "{\"model\": \"" + MODELS.getOrDefault(call, "demo") + "\", " + asked + "}";
        return builder.header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
    }
}
