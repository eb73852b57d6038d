import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.FileReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.PrivateKey;
import java.security.Security;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSProcessableByteArray;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;

/**
 * Opens Direct messages with Bouncy Castle's CMS classes and its own provider.
 *
 * <p>Arguments and commands are those of openssl_cms.c. CPU time is that of the whole process, garbage collection and
 * compilation included. The clock of the JVM ticks every 10 ms, so a run goes on until it has used MIN_NANOS. One more
 * command: {@code warm NAME SECONDS}.
 */
public final class BouncyCastleUnwrap {
    private static final long MIN_NANOS = 150_000_000L;
    private static final byte[] EMPTY_LINE = "\r\n\r\n".getBytes(StandardCharsets.US_ASCII);
    private static final OperatingSystemMXBean SYSTEM =
        (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private final Map<String, byte[]> messages = new HashMap<>();
    private final JceKeyTransEnvelopedRecipient recipient;

    private BouncyCastleUnwrap(String[] args) throws Exception {
        recipient = new JceKeyTransEnvelopedRecipient(key(args[0]));
        recipient.setProvider("BC");
        for (String argument : Arrays.copyOfRange(args, 2, args.length)) {
            String[] named = argument.split("=", 2);
            messages.put(named[0], Files.readAllBytes(Path.of(named[1])));
        }
    }

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        BouncyCastleUnwrap peer = new BouncyCastleUnwrap(args);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            System.out.println(peer.answer(line.split(" ")));
        }
    }

    private String answer(String[] command) throws Exception {
        switch (command[0]) {
            case "run":
                return String.format(Locale.ROOT, "%.9f", run(command[1], Integer.parseInt(command[2]), MIN_NANOS));
            case "warm":
                return String.format(Locale.ROOT, "%.9f", run(command[1], 1, Long.parseLong(command[2]) * 1_000_000_000L));
            case "peak":
                return peak();
            case "about":
                return "Bouncy Castle " + BouncyCastleProvider.class.getPackage().getImplementationVersion()
                    + ", Java " + System.getProperty("java.version");
            default:
                throw new IllegalArgumentException("unknown command");
        }
    }

    private double run(String name, int repeats, long minNanos) throws Exception {
        byte[] message = messages.get(name);
        long start = SYSTEM.getProcessCpuTime();
        long used = 0;
        int done = 0;
        while (done < repeats || used < minNanos) {
            unwrap(message);
            done++;
            used = SYSTEM.getProcessCpuTime() - start;
        }
        return used / 1e9 / done;
    }

    private static String peak() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return line.replaceAll("\\D", "");
            }
        }
        return "-1";
    }

    private void unwrap(byte[] message) throws Exception {
        int body = find(message, EMPTY_LINE, 0) + EMPTY_LINE.length;
        byte[] der = Base64.getMimeDecoder().decode(Arrays.copyOfRange(message, body, message.length));
        CMSEnvelopedData enveloped = new CMSEnvelopedData(der);
        byte[] plain = enveloped.getRecipientInfos().getRecipients().iterator().next().getContent(recipient);
        verify(plain);
    }

    private static void verify(byte[] plain) throws Exception {
        byte[] mark = "boundary=\"".getBytes(StandardCharsets.US_ASCII);
        int boundary = find(plain, mark, 0) + mark.length;
        int quote = find(plain, new byte[] {'"'}, boundary);
        String name = new String(plain, boundary, quote - boundary, StandardCharsets.US_ASCII);
        byte[] delimiter = ("\r\n--" + name).getBytes(StandardCharsets.US_ASCII);
        int first = find(plain, delimiter, quote) + delimiter.length + 2;
        int firstEnd = find(plain, delimiter, first);
        int second = find(plain, EMPTY_LINE, firstEnd) + EMPTY_LINE.length;
        int secondEnd = find(plain, Arrays.copyOfRange(delimiter, 2, delimiter.length), second);
        byte[] signature = Base64.getMimeDecoder().decode(Arrays.copyOfRange(plain, second, secondEnd));
        CMSSignedData signed =
            new CMSSignedData(new CMSProcessableByteArray(Arrays.copyOfRange(plain, first, firstEnd)), signature);
        SignerInformation signer = signed.getSignerInfos().getSigners().iterator().next();
        @SuppressWarnings("unchecked")
        X509CertificateHolder holder =
            (X509CertificateHolder) signed.getCertificates().getMatches(signer.getSID()).iterator().next();
        if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider("BC").build(holder))) {
            throw new IllegalStateException("the signature does not verify");
        }
    }

    /** The position of the bytes, found by their first byte; they are rare in what is searched. */
    private static int find(byte[] data, byte[] what, int from) {
        for (int i = from; i <= data.length - what.length; i++) {
            if (data[i] == what[0] && Arrays.equals(data, i, i + what.length, what, 0, what.length)) {
                return i;
            }
        }
        throw new IllegalStateException("the message is not built as expected");
    }

    private static PrivateKey key(String path) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(path))) {
            return new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) parser.readObject());
        }
    }
}
