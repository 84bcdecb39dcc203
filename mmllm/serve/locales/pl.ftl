retry-in =
    { $seconds ->
        [one] Spróbuj ponownie za { $seconds } sekundę.
        [few] Spróbuj ponownie za { $seconds } sekundy.
        [many] Spróbuj ponownie za { $seconds } sekund.
       *[other] Spróbuj ponownie za { $seconds } sekundy.
    }

bad-request = Nie udało się zrozumieć żądania.
    .title = Błędne żądanie
invalid-field = Brakuje pola „{ $field }” albo ma ono niedozwoloną wartość.
    .title = Nieprawidłowe pole
too-many-items =
    { $limit ->
        [one] Pole „{ $field }” może zawierać najwyżej { $limit } element.
        [few] Pole „{ $field }” może zawierać najwyżej { $limit } elementy.
        [many] Pole „{ $field }” może zawierać najwyżej { $limit } elementów.
       *[other] Pole „{ $field }” może zawierać najwyżej { $limit } elementu.
    }
    .title = Zbyt wiele elementów
body-too-large = Treść żądania jest za duża.
    .more = Przyjmuje się najwyżej { $limit } B.
    .title = Żądanie za duże
body-timeout = Treść żądania nie dotarła na czas.
    .title = Przekroczono czas żądania
unsupported-media-type = Ten rodzaj treści nie jest tu odczytywany.
    .more = Dozwolone: { $accepted }.
    .title = Nieobsługiwany typ treści
base64-invalid = Pole „{ $field }” musi zawierać obraz jako base64 albo jako identyfikator data URI.
    .title = Nieprawidłowe base64
url-refused = Adresy nigdy nie są pobierane. Wyślij sam obraz: jako plik, jako base64 albo jako data URI.
    .title = Adres odrzucony
not-an-image = Przesłane dane są uszkodzone albo nie są obrazem.
    .title = To nie jest obraz
image-truncated = Obraz jest uszkodzony albo niepełny.
    .title = Uszkodzony obraz
image-too-large = Obraz jest za duży. Przyjmuje się najwyżej { $limit } px łącznie i { $side } px na bok.
    .title = Obraz za duży
image-too-small = Obraz ma wymiary { $width } × { $height } px. Każdy bok musi mieć co najmniej { $least } px.
    .title = Obraz za mały
image-animated = Obraz jest animacją. Wyślij pojedynczą klatkę.
    .title = Animowany obraz
image-too-complex = Obraz zapisano w zbyt wielu przebiegach. Zapisz go ponownie jako zwykły JPEG lub PNG.
    .title = Obraz zbyt złożony
image-format = Ten format obrazu nie jest tu odczytywany.
    .more = Dozwolone: { $formats }.
    .title = Nieobsługiwany format obrazu
text-empty = Pole „{ $field }” nie może być puste.
    .title = Pusty tekst
text-too-long =
    { $limit ->
        [one] Pole „{ $field }” może mieć najwyżej { $limit } znak.
        [few] Pole „{ $field }” może mieć najwyżej { $limit } znaki.
        [many] Pole „{ $field }” może mieć najwyżej { $limit } znaków.
       *[other] Pole „{ $field }” może mieć najwyżej { $limit } znaku.
    }
    .title = Tekst za długi
text-too-many-tokens = Tekst w polu „{ $field }” jest za długi dla modelu. Skróć go.
    .title = Tekst za długi dla modelu
text-control = Pole „{ $field }” zawiera niedozwolony znak: { $character }.
    .title = Niedozwolony znak
language-unknown = Model nie zna tego języka.
    .more = Dostępne: { $languages }.
    .title = Nieznany język
unauthorized = To żądanie wymaga klucza albo tokenu.
    .title = Brak uwierzytelnienia
key-invalid = Klucz jest nieprawidłowy.
    .title = Nieprawidłowy klucz
token-invalid = Token jest nieprawidłowy.
    .title = Nieprawidłowy token
token-expired = Token wygasł. Uzyskaj nowy.
    .title = Token wygasł
credentials-conflict = Wyślij jeden klucz albo jeden token, nie kilka.
    .title = Sprzeczne dane uwierzytelniające
forbidden = To działanie jest niedozwolone.
    .more = Potrzebne jest uprawnienie „{ $scope }”.
    .title = Brak uprawnień
host-unknown = Ten serwer nie odpowiada pod tą nazwą.
    .title = Nieznany host
not-found = Pod tym adresem niczego nie ma.
    .title = Nie znaleziono
entry-not-found = W indeksie nie ma wpisu o tej nazwie.
    .title = Nie znaleziono wpisu
method-not-allowed = Ten adres nie obsługuje tej metody.
    .title = Niedozwolona metoda
rate-limited = Wysłano zbyt wiele żądań.
    .title = Zbyt wiele żądań
queue-full = Usługa jest zajęta.
    .title = Usługa zajęta
deadline = Odpowiedź nie była gotowa na czas.
    .title = Przekroczono czas
draining = Usługa jest zatrzymywana albo uruchamiana ponownie.
    .title = Usługa jest zatrzymywana
model-unavailable = Model jest w tej chwili niedostępny.
    .title = Model niedostępny
engine-stuck = Model nie odpowiedział i jest uruchamiany ponownie.
    .title = Model nie odpowiada
client-gone = Połączenie zamknięto, zanim odpowiedź była gotowa.
    .title = Połączenie zamknięte
index-full = Indeks wyszukiwania jest pełny. Najpierw usuń jakieś wpisy.
    .title = Indeks pełny
index-unavailable = Indeks wyszukiwania jest w tej chwili niedostępny.
    .title = Indeks niedostępny
model-refused = Nie udało się wczytać nowego modelu. W użyciu pozostaje poprzedni.
    .title = Model odrzucony
reload-running = Trwa wczytywanie innego modelu. Poczekaj na jego zakończenie.
    .title = Wczytywanie już trwa
several-processes = Działa tu kilka procesów, a model zmieniłby tylko jeden z nich. Uruchom je kolejno ponownie z nowym modelem.
    .title = Kilka procesów
internal = Na serwerze wystąpił błąd. Numer żądania pomoże znaleźć przyczynę.
    .title = Błąd wewnętrzny
