retry-in =
    { $seconds ->
        [one] Inténtelo de nuevo dentro de { $seconds } segundo.
       *[other] Inténtelo de nuevo dentro de { $seconds } segundos.
    }

bad-request = No se ha podido entender la solicitud.
    .title = Solicitud incorrecta
invalid-field = El campo «{ $field }» falta o tiene un valor no permitido.
    .title = Campo no válido
too-many-items =
    { $limit ->
        [one] El campo «{ $field }» puede contener { $limit } elemento como máximo.
       *[other] El campo «{ $field }» puede contener { $limit } elementos como máximo.
    }
    .title = Demasiados elementos
body-too-large = El cuerpo de la solicitud es demasiado grande.
    .more = Se aceptan { $limit } B como máximo.
    .title = Solicitud demasiado grande
body-timeout = El cuerpo de la solicitud no ha llegado a tiempo.
    .title = Tiempo de la solicitud agotado
unsupported-media-type = Este tipo de contenido no se lee aquí.
    .more = Se aceptan: { $accepted }.
    .title = Tipo de contenido no admitido
base64-invalid = El campo «{ $field }» debe contener una imagen en base64 o como URI de datos.
    .title = Base64 no válido
url-refused = Las direcciones nunca se consultan. Envíe la propia imagen: como archivo, en base64 o como URI de datos.
    .title = Dirección rechazada
not-an-image = Los datos enviados están dañados o no son una imagen.
    .title = No es una imagen
image-truncated = La imagen está dañada o incompleta.
    .title = Imagen dañada
image-too-large = La imagen es demasiado grande. Se aceptan como máximo { $limit } px en total y { $side } px por lado.
    .title = Imagen demasiado grande
image-too-small = La imagen mide { $width } × { $height } px. Cada lado debe tener al menos { $least } px.
    .title = Imagen demasiado pequeña
image-animated = La imagen es una animación. Envíe un solo fotograma.
    .title = Imagen animada
image-too-complex = La imagen está guardada en demasiadas pasadas. Guárdela de nuevo como JPEG o PNG corriente.
    .title = Imagen demasiado compleja
image-format = Este formato de imagen no se lee aquí.
    .more = Se aceptan: { $formats }.
    .title = Formato de imagen no admitido
text-empty = El campo «{ $field }» no debe estar vacío.
    .title = Texto vacío
text-too-long =
    { $limit ->
        [one] El campo «{ $field }» puede tener { $limit } carácter como máximo.
       *[other] El campo «{ $field }» puede tener { $limit } caracteres como máximo.
    }
    .title = Texto demasiado largo
text-too-many-tokens = El texto del campo «{ $field }» es demasiado largo para el modelo. Acórtelo.
    .title = Texto demasiado largo para el modelo
text-control = El campo «{ $field }» contiene un carácter no permitido: { $character }.
    .title = Carácter no permitido
language-unknown = El modelo no habla este idioma.
    .more = Disponibles: { $languages }.
    .title = Idioma desconocido
unauthorized = Esta solicitud necesita una clave o un token.
    .title = Sin identificar
key-invalid = La clave no es válida.
    .title = Clave no válida
token-invalid = El token no es válido.
    .title = Token no válido
token-expired = El token ha caducado. Obtenga uno nuevo.
    .title = Token caducado
credentials-conflict = Envíe una sola clave o un solo token.
    .title = Credenciales contradictorias
forbidden = No tiene permiso para hacer esto.
    .more = Hace falta el permiso «{ $scope }».
    .title = No permitido
host-unknown = Este servidor no responde con ese nombre.
    .title = Servidor desconocido
not-found = No hay nada en esta dirección.
    .title = No encontrado
entry-not-found = El índice no tiene ninguna entrada con ese nombre.
    .title = Entrada no encontrada
method-not-allowed = Esta dirección no admite ese método.
    .title = Método no permitido
rate-limited = Se han enviado demasiadas solicitudes.
    .title = Demasiadas solicitudes
queue-full = El servicio está ocupado.
    .title = Servicio ocupado
deadline = La respuesta no ha estado lista a tiempo.
    .title = Tiempo agotado
draining = El servicio se está deteniendo o reiniciando.
    .title = Servicio deteniéndose
model-unavailable = El modelo no está disponible en este momento.
    .title = Modelo no disponible
engine-stuck = El modelo no ha respondido y se está reiniciando.
    .title = El modelo no responde
client-gone = La conexión se cerró antes de que la respuesta estuviera lista.
    .title = Conexión cerrada
index-full = El índice de búsqueda está lleno. Elimine antes alguna entrada.
    .title = Índice lleno
index-unavailable = El índice de búsqueda no está disponible en este momento.
    .title = Índice no disponible
model-refused = No se ha podido cargar el modelo nuevo. Sigue en uso el anterior.
    .title = Modelo rechazado
reload-running = Se está cargando otro modelo. Espere a que termine.
    .title = Carga ya en curso
several-processes = Aquí responden varios procesos y solo uno de ellos cambiaría de modelo. Reinícielos uno a uno con el modelo nuevo.
    .title = Varios procesos
internal = Algo ha fallado en el servidor. El número de la solicitud ayuda a encontrar la causa.
    .title = Error interno
