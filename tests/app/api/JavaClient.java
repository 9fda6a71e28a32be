import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

/** Requests by Java's own client, which offers HTTP/2 with each of them. Prints name, version, status and body of each answer. */
class JavaClient {
    static final String FORM = "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\ngreen\r\n--b--\r\n";
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static void send(String name, HttpRequest.Builder request) throws Exception {
        HttpResponse<String> answer = CLIENT.send(request.timeout(Duration.ofSeconds(20)).build(), BodyHandlers.ofString());
        System.out.println(name + " " + answer.version() + " " + answer.statusCode() + " " + answer.body());
    }

    static HttpRequest.Builder post(String url, String mediaType, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(url + "/v1/classify")).header("Content-Type", mediaType).POST(body);
    }

    static BodyPublisher chunks(String body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes()));
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        send("json", post(url, "application/json", BodyPublishers.ofString("{\"text\": \"blue\"}")));
        send("form", post(url, "multipart/form-data; boundary=b", BodyPublishers.ofString(FORM)));
        send("models", HttpRequest.newBuilder(URI.create(url + "/v1/models")));
        send("chunked", post(url, "application/json", chunks("{\"text\": \"red\"}")));
    }
}
