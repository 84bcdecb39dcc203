retry-in =
    { $seconds ->
        [one] Bir saniye sonra yeniden deneyin.
       *[other] { $seconds } saniye sonra yeniden deneyin.
    }

bad-request = İstek anlaşılamadı.
    .title = Hatalı istek
invalid-field = “{ $field }” alanı eksik veya izin verilmeyen bir değer içeriyor.
    .title = Geçersiz alan
too-many-items =
    { $limit ->
        [one] “{ $field }” alanı yalnızca bir öğe içerebilir.
       *[other] “{ $field }” alanı en çok { $limit } öğe içerebilir.
    }
    .title = Çok fazla öğe
body-too-large = İsteğin gövdesi çok büyük.
    .more = En çok { $limit } B kabul edilir.
    .title = İstek çok büyük
body-timeout = İsteğin gövdesi zamanında ulaşmadı.
    .title = İstek zaman aşımına uğradı
unsupported-media-type = Bu tür içerik burada okunmaz.
    .more = Kabul edilenler: { $accepted }.
    .title = Desteklenmeyen içerik türü
base64-invalid = “{ $field }” alanı base64 veya veri URI’si olarak bir görüntü içermelidir.
    .title = Geçersiz base64
url-refused = Adreslerden hiçbir zaman veri alınmaz. Görüntünün kendisini dosya, base64 veya veri URI’si olarak gönderin.
    .title = Adres reddedildi
not-an-image = Gönderilen veri bozuk veya bir görüntü değil.
    .title = Görüntü değil
image-truncated = Görüntü bozuk veya eksik.
    .title = Bozuk görüntü
image-too-large = Görüntü çok büyük. Toplamda en çok { $limit } px ve kenar başına en çok { $side } px kabul edilir.
    .title = Görüntü çok büyük
image-too-small = Görüntünün boyutu { $width } × { $height } px. Her kenar en az { $least } px olmalıdır.
    .title = Görüntü çok küçük
image-animated = Görüntü hareketli. Tek bir kare gönderin.
    .title = Hareketli görüntü
image-too-complex = Görüntü çok fazla geçişle kaydedilmiş. Sıradan bir JPEG veya PNG olarak yeniden kaydedin.
    .title = Görüntü çok karmaşık
image-format = Bu görüntü biçimi burada okunmaz.
    .more = Kabul edilenler: { $formats }.
    .title = Desteklenmeyen görüntü biçimi
text-empty = “{ $field }” alanı boş olamaz.
    .title = Boş metin
text-too-long =
    { $limit ->
        [one] “{ $field }” alanı yalnızca bir karakter içerebilir.
       *[other] “{ $field }” alanı en çok { $limit } karakter içerebilir.
    }
    .title = Metin çok uzun
text-too-many-tokens = “{ $field }” alanındaki metin model için çok uzun. Kısaltın.
    .title = Metin model için çok uzun
text-control = “{ $field }” alanında izin verilmeyen bir karakter var: { $character }.
    .title = İzin verilmeyen karakter
language-unknown = Model bu dili bilmiyor.
    .more = Kullanılabilenler: { $languages }.
    .title = Bilinmeyen dil
unauthorized = Bu istek için bir anahtar veya belirteç gerekir.
    .title = Kimlik doğrulanmadı
key-invalid = Anahtar geçerli değil.
    .title = Geçersiz anahtar
token-invalid = Belirteç geçerli değil.
    .title = Geçersiz belirteç
token-expired = Belirtecin süresi doldu. Yenisini alın.
    .title = Süresi dolmuş belirteç
credentials-conflict = Tek bir anahtar veya tek bir belirteç gönderin.
    .title = Çelişen kimlik bilgileri
forbidden = Bunu yapma izniniz yok.
    .more = “{ $scope }” izni gerekir.
    .title = İzin yok
host-unknown = Bu sunucu o adla yanıt vermiyor.
    .title = Bilinmeyen sunucu
not-found = Bu adreste bir şey yok.
    .title = Bulunamadı
entry-not-found = Dizinde bu adda bir kayıt yok.
    .title = Kayıt bulunamadı
method-not-allowed = Bu adres o yöntemi desteklemiyor.
    .title = Yönteme izin verilmiyor
rate-limited = Çok fazla istek gönderildi.
    .title = Çok fazla istek
queue-full = Hizmet meşgul.
    .title = Hizmet meşgul
deadline = Yanıt zamanında hazır olmadı.
    .title = Süre doldu
draining = Hizmet kapanıyor veya yeniden başlıyor.
    .title = Hizmet kapanıyor
model-unavailable = Model şu anda kullanılamıyor.
    .title = Model kullanılamıyor
engine-stuck = Model yanıt vermedi ve yeniden başlatılıyor.
    .title = Model yanıt vermiyor
client-gone = Bağlantı, yanıt hazır olmadan kapatıldı.
    .title = Bağlantı kapandı
index-full = Arama dizini dolu. Önce bazı kayıtları silin.
    .title = Dizin dolu
index-unavailable = Arama dizini şu anda kullanılamıyor.
    .title = Dizin kullanılamıyor
model-refused = Yeni model yüklenemedi. Eskisi kullanılmaya devam ediyor.
    .title = Model reddedildi
reload-running = Başka bir model yükleniyor. Bitmesini bekleyin.
    .title = Yükleme sürüyor
several-processes = Burada birden çok süreç yanıt veriyor ve yalnızca biri model değiştirirdi. Bunları yeni modelle teker teker yeniden başlatın.
    .title = Birden çok süreç
internal = Sunucuda bir sorun oluştu. İstek numarası nedeni bulmaya yardımcı olur.
    .title = İç hata
