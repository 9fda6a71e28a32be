// Which texts show nothing: the service counts them as missing (model/blank.py has the same characters).

const SHOWN =
  /[^\p{White_Space}\p{Cc}\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800\uFFFC\u{1D159}\u{13440}-\u{13442}\u{16FE4}]|[\u0600-\u0605\u06DD\u070F\u0890\u0891\u08E2\u{110BD}\u{110CD}]/u;

/** Whether no character of a text shows anything. @param {string} text */
export const isBlank = (text) => !SHOWN.test(text);
