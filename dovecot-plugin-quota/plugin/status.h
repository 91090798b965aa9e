/* IMAP STATUS with DELETED and DELETED-STORAGE (RFC 9208). */
#ifndef USAGE_STATUS_H
#define USAGE_STATUS_H

/* In the place of Dovecot's command, which must be registered; and back. */
void status_init(void);
void status_deinit(void);

#endif
