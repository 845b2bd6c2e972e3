/* grammar_format.c - formats of JSON Schema 2020-12 as patterns. Dates are real ones (29 February in leap
 * years only); addresses and names are kept to the forms that every reader accepts. */
#include "chat/grammar_schema.h"

#define YEAR "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d\\d\\d)"
#define LEAP_TAIL "(?:0[48]|[2468][048]|[13579][26])"
#define LEAP_YEAR "(?:\\d\\d" LEAP_TAIL "|" LEAP_TAIL "00)"
#define DATE                                                                                                 \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)"         \
    "|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP_YEAR "-02-29)"
#define TIME "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,28}[A-Za-z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){0,7}" /* at most 247 characters */
#define N "\\d{1,4}"
#define DURATION_TIME "(?:" N "H(?:" N "M(?:" N "S)?)?|" N "M(?:" N "S)?|" N "S)"
#define PATH_CHAR "[A-Za-z0-9._~!$&'()*+,;=:@-]"

static const struct {
    const char *name, *regex; /* NULL: of the standard, not supported */
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P(?:" N "W|(?:" N "Y(?:" N "M(?:" N "D)?)?|" N "M(?:" N "D)?|" N "D)(?:T" DURATION_TIME
                 ")?|T" DURATION_TIME ")$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"email", "^[A-Za-z0-9_+-]+(?:\\.[A-Za-z0-9_+-]+)*@" LABEL "(?:\\." LABEL "){1,7}$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" OCTET "(?:\\." OCTET "){3}$"},
    {"ipv6", "^[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){7}$"},
    {"uri", "^[a-z][a-z0-9+.-]{0,15}://" HOST "(?::\\d{1,4})?(?:/" PATH_CHAR "*)*(?:\\?(?:" PATH_CHAR
            "|[/?])*)?(?:#(?:" PATH_CHAR "|[/?])*)?$"},
    {"json-pointer", "^(?:/(?:[^~/]|~[01])*)*$"},
    {"idn-email", NULL},
    {"idn-hostname", NULL},
    {"uri-reference", NULL},
    {"iri", NULL},
    {"iri-reference", NULL},
    {"uri-template", NULL},
    {"relative-json-pointer", NULL},
    {"regex", NULL},
};

bool format_pattern(struct str name, struct str *regex) {
    *regex = STR_NONE;
    for (u32 i = 0; i < ARRAY_LEN(formats); i++)
        if (str_is(name, formats[i].name)) {
            *regex = str_of(formats[i].regex);
            return formats[i].regex != NULL;
        }
    return true;
}
