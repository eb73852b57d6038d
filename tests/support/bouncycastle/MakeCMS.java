import java.io.FileReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.security.spec.MGF1ParameterSpec;
import java.util.ArrayList;
import java.util.List;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.operator.OutputAEADEncryptor;
import org.bouncycastle.operator.OutputEncryptor;
import org.bouncycastle.operator.jcajce.JcaAlgorithmParametersConverter;

/**
 * Makes CMS objects with Bouncy Castle, for interoperability tests.
 *
 * <pre>
 *   MakeCMS sign    IN OUT ber|der detached|opaque ALGORITHM SIGNER_CERT SIGNER_KEY [CHAIN_CERT...]
 *   MakeCMS encrypt IN OUT ber|der CIPHER v15|oaep256 RECIPIENT_CERT...
 * </pre>
 */
public final class MakeCMS {
    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        byte[] input = Files.readAllBytes(Path.of(args[1]));
        byte[] output = args[0].equals("sign") ? sign(input, args) : encrypt(input, args);
        Files.write(Path.of(args[2]), output);
    }

    private static byte[] sign(byte[] input, String[] args) throws Exception {
        X509Certificate certificate = certificate(args[6]);
        PrivateKey key = key(args[7]);
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        generator.addSignerInfoGenerator(
            new JcaSimpleSignerInfoGeneratorBuilder().setProvider("BC").build(args[5], key, certificate));
        List<X509Certificate> certificates = new ArrayList<>();
        certificates.add(certificate);
        for (int i = 8; i < args.length; i++) {
            certificates.add(certificate(args[i]));
        }
        generator.addCertificates(new JcaCertStore(certificates));
        CMSSignedData signed = generator.generate(new CMSProcessableByteArray(input), args[4].equals("opaque"));
        return args[3].equals("der") ? signed.getEncoded("DER") : signed.getEncoded();
    }

    private static byte[] encrypt(byte[] input, String[] args) throws Exception {
        ASN1ObjectIdentifier cipher = switch (args[4]) {
            case "aes128-cbc" -> CMSAlgorithm.AES128_CBC;
            case "aes192-cbc" -> CMSAlgorithm.AES192_CBC;
            case "aes256-cbc" -> CMSAlgorithm.AES256_CBC;
            case "aes128-gcm" -> CMSAlgorithm.AES128_GCM;
            case "aes256-gcm" -> CMSAlgorithm.AES256_GCM;
            case "des-ede3-cbc" -> CMSAlgorithm.DES_EDE3_CBC;
            default -> throw new IllegalArgumentException(args[4]);
        };
        OutputEncryptor encryptor = new JceCMSContentEncryptorBuilder(cipher).setProvider("BC").build();
        CMSTypedData data = new CMSProcessableByteArray(input);
        if (args[4].endsWith("gcm")) {
            CMSAuthEnvelopedDataGenerator generator = new CMSAuthEnvelopedDataGenerator();
            for (int i = 6; i < args.length; i++) {
                generator.addRecipientInfoGenerator(recipient(args[5], certificate(args[i])));
            }
            CMSAuthEnvelopedData enveloped = generator.generate(data, (OutputAEADEncryptor) encryptor);
            return args[3].equals("der") ? enveloped.toASN1Structure().getEncoded("DER") : enveloped.getEncoded();
        }
        CMSEnvelopedDataGenerator generator = new CMSEnvelopedDataGenerator();
        for (int i = 6; i < args.length; i++) {
            generator.addRecipientInfoGenerator(recipient(args[5], certificate(args[i])));
        }
        CMSEnvelopedData enveloped = generator.generate(data, encryptor);
        return args[3].equals("der") ? enveloped.toASN1Structure().getEncoded("DER") : enveloped.getEncoded();
    }

    private static RecipientInfoGenerator recipient(String transport, X509Certificate certificate) throws Exception {
        if (transport.equals("oaep256")) {
            OAEPParameterSpec oaep = new OAEPParameterSpec(
                "SHA-256", "MGF1", MGF1ParameterSpec.SHA256, PSource.PSpecified.DEFAULT);
            AlgorithmIdentifier algorithm = new JcaAlgorithmParametersConverter()
                .getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, oaep);
            return new JceKeyTransRecipientInfoGenerator(certificate, algorithm).setProvider("BC");
        }
        return new JceKeyTransRecipientInfoGenerator(certificate).setProvider("BC");
    }

    private static X509Certificate certificate(String path) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(path))) {
            return new JcaX509CertificateConverter().getCertificate((X509CertificateHolder) parser.readObject());
        }
    }

    private static PrivateKey key(String path) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(path))) {
            return new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) parser.readObject());
        }
    }
}
