retry-in =
    { $seconds ->
        [one] Réessayez dans { $seconds } seconde.
       *[other] Réessayez dans { $seconds } secondes.
    }

bad-request = La requête n’a pas pu être comprise.
    .title = Requête incorrecte
invalid-field = Le champ « { $field } » manque ou contient une valeur non autorisée.
    .title = Champ non valide
too-many-items =
    { $limit ->
        [one] Le champ « { $field } » peut contenir { $limit } élément au maximum.
       *[other] Le champ « { $field } » peut contenir { $limit } éléments au maximum.
    }
    .title = Trop d’éléments
body-too-large = Le corps de la requête est trop volumineux.
    .more = { $limit } o au maximum sont acceptés.
    .title = Requête trop volumineuse
body-timeout = Le corps de la requête n’est pas arrivé à temps.
    .title = Délai de la requête dépassé
unsupported-media-type = Ce type de contenu n’est pas lu ici.
    .more = Acceptés : { $accepted }.
    .title = Type de contenu non pris en charge
base64-invalid = Le champ « { $field } » doit contenir une image en base64 ou en URI de données.
    .title = Base64 non valide
url-refused = Les adresses ne sont jamais consultées. Envoyez l’image elle-même : en fichier, en base64 ou en URI de données.
    .title = Adresse refusée
not-an-image = Les données envoyées sont endommagées ou ne sont pas une image.
    .title = Pas une image
image-truncated = L’image est endommagée ou incomplète.
    .title = Image endommagée
image-too-large = L’image est trop grande. Au maximum { $limit } px au total et { $side } px par côté sont acceptés.
    .title = Image trop grande
image-too-small = L’image mesure { $width } × { $height } px. Chaque côté doit avoir au moins { $least } px.
    .title = Image trop petite
image-animated = L’image est une animation. Envoyez une seule vue.
    .title = Image animée
image-too-complex = L’image est enregistrée en trop de passes. Enregistrez-la de nouveau en JPEG ou PNG ordinaire.
    .title = Image trop complexe
image-format = Ce format d’image n’est pas lu ici.
    .more = Acceptés : { $formats }.
    .title = Format d’image non pris en charge
text-empty = Le champ « { $field } » ne doit pas être vide.
    .title = Texte vide
text-too-long =
    { $limit ->
        [one] Le champ « { $field } » peut avoir { $limit } caractère au maximum.
       *[other] Le champ « { $field } » peut avoir { $limit } caractères au maximum.
    }
    .title = Texte trop long
text-too-many-tokens = Le texte du champ « { $field } » est trop long pour le modèle. Raccourcissez-le.
    .title = Texte trop long pour le modèle
text-control = Le champ « { $field } » contient un caractère non autorisé : { $character }.
    .title = Caractère non autorisé
language-unknown = Le modèle ne parle pas cette langue.
    .more = Disponibles : { $languages }.
    .title = Langue inconnue
unauthorized = Cette requête exige une clé ou un jeton.
    .title = Non identifié
key-invalid = La clé n’est pas valide.
    .title = Clé non valide
token-invalid = Le jeton n’est pas valide.
    .title = Jeton non valide
token-expired = Le jeton a expiré. Demandez-en un nouveau.
    .title = Jeton expiré
credentials-conflict = Envoyez une seule clé ou un seul jeton.
    .title = Identifiants contradictoires
forbidden = Vous n’avez pas le droit de faire cela.
    .more = Il faut l’autorisation « { $scope } ».
    .title = Non autorisé
host-unknown = Ce serveur ne répond pas sous ce nom.
    .title = Hôte inconnu
not-found = Il n’y a rien à cette adresse.
    .title = Introuvable
entry-not-found = L’index n’a pas d’entrée de ce nom.
    .title = Entrée introuvable
method-not-allowed = Cette adresse ne prend pas en charge cette méthode.
    .title = Méthode non autorisée
rate-limited = Trop de requêtes ont été envoyées.
    .title = Trop de requêtes
queue-full = Le service est occupé.
    .title = Service occupé
deadline = La réponse n’a pas été prête à temps.
    .title = Délai dépassé
draining = Le service s’arrête ou redémarre.
    .title = Service en cours d’arrêt
model-unavailable = Le modèle n’est pas disponible pour le moment.
    .title = Modèle indisponible
engine-stuck = Le modèle n’a pas répondu et redémarre.
    .title = Le modèle ne répond pas
client-gone = La connexion a été fermée avant que la réponse soit prête.
    .title = Connexion fermée
index-full = L’index de recherche est plein. Supprimez d’abord des entrées.
    .title = Index plein
index-unavailable = L’index de recherche n’est pas disponible pour le moment.
    .title = Index indisponible
model-refused = Le nouveau modèle n’a pas pu être chargé. L’ancien reste en service.
    .title = Modèle refusé
reload-running = Un autre modèle est en cours de chargement. Attendez qu’il soit prêt.
    .title = Chargement déjà en cours
several-processes = Plusieurs processus répondent ici et un seul d’entre eux changerait de modèle. Redémarrez-les un par un avec le nouveau modèle.
    .title = Plusieurs processus
internal = Une erreur s’est produite sur le serveur. Le numéro de la requête aide à en trouver la cause.
    .title = Erreur interne
