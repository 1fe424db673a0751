//! The pages, as a browser without JavaScript sees them. Whether everybody can use them is for `axe/` to say.

use reqwest::multipart::{Form, Part};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};

use crate::pki::{Authority, Mount};
use crate::program::Serving;
use crate::world::{ANNA, PASSWORD, Site, World};

/// A browser: it keeps cookies, and follows where it is sent.
struct Browser {
    client: Client,
    site: Site,
    _mount: Mount,
}

impl Browser {
    fn open(world: &World, release: u32) -> Self {
        let authority = Authority::new();
        let pair = authority.issue();
        let files = [("tls.crt", pair.certificate.as_str()), ("tls.key", pair.key.as_str())];
        let mount = Mount::new(world.folder.path().join("tls"), &files);
        let mut environment = world.service(release);
        environment.insert("JOURNAL_TLS_CERT_FILE", mount.path("tls.crt").display().to_string());
        environment.insert("JOURNAL_TLS_KEY_FILE", mount.path("tls.key").display().to_string());
        let site = Site::over_https(Serving::start(&environment), &authority.pem());
        let certificate = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let client =
            Client::builder().no_proxy().tls_certs_only([certificate]).cookie_store(true).build().unwrap();
        Self { client, site, _mount: mount }
    }

    async fn sign_in(&self) -> (StatusCode, String) {
        self.submit("/sign-in", &[("user", ANNA), ("password", PASSWORD)]).await
    }

    async fn submit(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, String) {
        page(self.client.post(self.site.url(path)).form(form)).await
    }

    async fn show(&self, path: &str) -> (StatusCode, String) {
        page(self.client.get(self.site.url(path))).await
    }
}

async fn page(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_sent_to_sign_in() {
    let world = World::of_release(2).await;
    let browser = Browser::open(&world, 2);

    for path in ["/", "/patients/1", "/access-log", "/attachments/1"] {
        let (status, html) = browser.show(path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(html.contains("<h1>Logga in</h1>"), "{path}: {html}");
    }
}

#[tokio::test]
async fn a_person_finds_a_patient_writes_a_note_and_signs_it() {
    let world = World::of_release(2).await;
    let browser = Browser::open(&world, 2);

    let (_, list) = browser.sign_in().await;
    let (_, chart) =
        browser.submit("/patients", &[("personnummer", "18900101-9802"), ("name", "Tova Testsson")]).await;
    let (_, found) = browser.submit("/find", &[("personnummer", "189001019802")]).await;
    let (_, written) = browser.submit("/patients/1/notes", &[("text", "Rad <ett>\r\nRad två")]).await;
    let (_, signed) = browser.submit("/notes/1/signature", &[]).await;

    assert!(list.contains("<h1>Patienter</h1>"));
    assert!(chart.contains("<h1>Tova Testsson</h1>") && found.contains("<h1>Tova Testsson</h1>"));
    assert!(written.contains("Rad &lt;ett&gt;\nRad två") && written.contains("Osignerad"), "{written}");
    assert!(signed.contains("Signerad ") && !signed.contains("Osignerad"), "{signed}");
}

#[tokio::test]
async fn a_person_saves_a_file_and_gets_it_back() {
    let world = World::of_release(1).await;
    let browser = Browser::open(&world, 1);
    browser.sign_in().await;
    browser.submit("/patients", &[("personnummer", "18900101-9802"), ("name", "Tova")]).await;

    let file = Part::bytes(vec![7; 3_000_000]).file_name("röntgen.dcm");
    let form = Form::new().part("file", file);
    let (status, chart) =
        page(browser.client.post(browser.site.url("/patients/1/attachments")).multipart(form)).await;
    let response = browser.client.get(browser.site.url("/attachments/1")).send().await.unwrap();

    assert_eq!(status, StatusCode::OK, "{chart}");
    assert!(chart.contains("röntgen.dcm") && !chart.contains("Osignerad"));
    assert!(response.bytes().await.unwrap() == vec![7; 3_000_000]);
}

#[tokio::test]
async fn a_wrong_password_is_said_on_the_page() {
    let world = World::of_release(1).await;
    let browser = Browser::open(&world, 1);

    let (status, html) = browser.submit("/sign-in", &[("user", ANNA), ("password", "fel")]).await;

    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("Fel HSA-id eller lösenord."));
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let world = World::of_release(1).await;
    let browser = Browser::open(&world, 1);
    browser.sign_in().await;

    browser.submit("/sign-out", &[]).await;

    assert!(browser.show("/").await.1.contains("<h1>Logga in</h1>"));
}

#[tokio::test]
async fn a_form_of_another_site_is_refused() {
    let world = World::of_release(1).await;
    let browser = Browser::open(&world, 1);
    browser.sign_in().await;

    let form = [("personnummer", "18900101-9802"), ("name", "Tova")];
    let request = browser.client.post(browser.site.url("/patients")).form(&form);
    let (status, _) = page(request.header("sec-fetch-site", "same-site")).await;

    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_cookie_and_the_headers_are_strict() {
    let world = World::of_release(1).await;
    let browser = Browser::open(&world, 1);
    let authority_free = browser.site.client.clone();

    let page = authority_free.get(browser.site.url("/sign-in")).send().await.unwrap();
    let client = Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).redirect(Policy::none());
    let form = [("user", ANNA), ("password", PASSWORD)];
    let signed_in =
        client.build().unwrap().post(browser.site.url("/sign-in")).form(&form).send().await.unwrap();

    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap();
    for word in ["__Host-journal=", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
    assert!(page.headers().contains_key("strict-transport-security"));
}
